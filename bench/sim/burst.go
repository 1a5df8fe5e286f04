package sim

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// burst is some clients at once. The order of their records is the log's to choose: it is read from there, and held
// against what each client did, in its order.
type burst struct {
	clients []*client
}

type client struct {
	plan  []record
	acked atomic.Int64 // records whose write was answered
	must  int64        // of these, the ones that a flush has covered; guarded by flushes
}

// opClients lets some clients write at once, each its own sector of chunks that all share, and whole chunks.
func (w *world) opClients() {
	v := w.volume()
	if v == nil {
		return
	}
	b := &burst{}
	win := w.someWindow()
	var flushes sync.Mutex
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 2 + w.rng.IntN(3) {
		b.clients = append(b.clients, &client{})
	}
	for i, c := range b.clients {
		rng := w.split()
		stamp := w.model.stamp
		w.model.stamp += 200
		wg.Go(func() {
			for range 1 + rng.IntN(8) {
				lba := win.first + rng.Int64N(min(2, win.count))
				off, n := lba*chunkSize+int64(i)*sectorSize, int64(sectorSize)
				if rng.IntN(4) == 0 {
					off, n = lba*chunkSize, chunkSize
				}
				r := record{kind: data, lba: lba, count: 1}
				p := make([]byte, n)
				for s := range n / sectorSize {
					stamp++
					at := (off/sectorSize + s) % sectors
					r.mask |= 1 << at
					r.content[at] = stamp
					fill(p[s*sectorSize:(s+1)*sectorSize], stamp)
				}
				c.plan = append(c.plan, r)
				if err := v.WriteAt(p, off, false); err != nil {
					failed.Store(&err)
					return
				}
				c.acked.Add(1)
				if rng.IntN(6) > 0 {
					continue
				}
				covered := make([]int64, len(b.clients))
				flushes.Lock()
				for k, other := range b.clients {
					covered[k] = other.acked.Load()
				}
				flushes.Unlock()
				if err := v.Flush(); err != nil {
					failed.Store(&err)
					return
				}
				flushes.Lock()
				for k, other := range b.clients {
					if !w.source().d.isDead() {
						other.must = max(other.must, covered[k])
					}
				}
				flushes.Unlock()
			}
		})
	}
	wg.Wait()
	w.burst = b
	s := w.source()
	if e := failed.Load(); e != nil && !s.d.isDead() && !w.allowed(s, *e) {
		w.fatal("error", "clients: %v", *e)
	}
	w.settle(v)
}

// settle puts the clients' records into the model, when the log can be read now; else the next recovery does.
func (w *world) settle(v *aodi.Volume) {
	s := w.source()
	err := v.Flush()
	if s.d.isDead() {
		return
	}
	if err != nil {
		if !w.allowed(s, err) {
			w.fatal("error", "flush: %v", err)
		}
		return
	}
	for _, c := range w.burst.clients {
		c.must = c.acked.Load()
	}
	end := s.end()
	if w.learn(s, end); w.burst != nil {
		s.d.die(false) // its disk did not give the records: the next life may
		return
	}
	w.flushed = max(w.flushed, end)
}

// learn reads the records from the end of the model up to end from the source's log, and finds whose they are.
func (w *world) learn(s *node, end aodi.Position) {
	b := w.burst
	if b == nil {
		return
	}
	next := make([]int, len(b.clients))
	w.model.truncate(min(w.known, end)) // a crash may have taken records before theirs, too
	if err := w.assign(s, end, next); err != nil {
		w.model.truncate(w.known)
		if errors.Is(err, aodi.ErrHistoryGone) {
			// The source crashed amid the clients, and its next life freed segments whose records later ones had all
			// superseded, before anyone could ask for their order: no promise is broken, but no model can be made.
			if !w.over {
				w.count("orders lost", 1)
			}
			w.over = true
			return
		}
		if !s.d.isDead() && !w.allowed(s, err) {
			w.fatal("error", "read the log from %d on: %v", w.known, err)
		}
		return
	}
	for i, c := range b.clients {
		if int64(next[i]) < c.must {
			w.fatal("flushed", "client %d: %d of its records are there, %d were flushed", i, next[i], c.must)
		}
	}
	w.burst, w.known = nil, w.model.end
}

// assign gives each record of the log in [model.end, end) to the client that wrote it, and adds it to the model.
func (w *world) assign(s *node, end aodi.Position, next []int) error {
	if end <= w.model.end {
		return nil
	}
	r, err := s.v.ReadLog(w.model.end)
	if err != nil {
		return err
	}
	defer r.Close()
	var got aodi.LogBatch
	for {
		err := r.Next(end, 1<<20, &got)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		bytes := got.Data
		for i, e := range got.Entries {
			if e.Kind != format.KindData {
				w.fatal("prefix", "the log has a record of kind %d at %d that nobody wrote", e.Kind, got.First+aodi.Position(i))
			}
			w.claim(next, e, bytes[:chunkSize])
			bytes = bytes[chunkSize:]
		}
	}
}

// claim finds the client whose next record makes the chunk what the log has.
func (w *world) claim(next []int, e format.Entry, p []byte) {
	got, err := read(p)
	if err != nil {
		w.fatal("prefix", "position %d, chunk %d: %v", w.model.end, e.LBA, err)
	}
	was := w.model.now(int64(e.LBA)).content
	for i, c := range w.burst.clients {
		if next[i] < len(c.plan) && c.plan[next[i]].lba == int64(e.LBA) && c.plan[next[i]].after(was) == got {
			w.model.add(c.plan[next[i]])
			next[i]++
			return
		}
	}
	w.fatal("prefix", "position %d: chunk %d becomes %v after %v, which no client has next", w.model.end, e.LBA, got, was)
}

package aodi

import (
	"context"
	"slices"
	"sync"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// durability knows how far the log is written and how far it is durable, and shares one sync among all
// who wait for it. No lock is held while the disk syncs.
//
// D1: durable <= written <= the last ticket that was given out.
// D2: durable moves to w only after a sync that started when written was already >= w.
type durability struct {
	sync func() error

	mu      sync.Mutex
	cond    *sync.Cond
	written mark // all writes up to this ticket have returned
	durable mark
	done    map[uint64]format.Position // writes that have returned out of order
	syncing bool
	err     error
	changed chan struct{} // closed and replaced when durable moves
	syncs   uint64
}

// mark is a ticket of the queue and the position that the log has reached with it.
type mark struct {
	ticket uint64
	end    format.Position
}

func newDurability(sync_ func() error, at format.Position) *durability {
	d := &durability{sync: sync_, done: map[uint64]format.Position{}, changed: make(chan struct{})}
	d.cond = sync.NewCond(&d.mu)
	d.written.end, d.durable.end = at, at
	return d
}

// complete is told of each write that has returned.
func (d *durability) complete(ticket uint64, end format.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done[ticket] = end
	for {
		e, ok := d.done[d.written.ticket+1]
		if !ok {
			break
		}
		delete(d.done, d.written.ticket+1)
		d.written = mark{d.written.ticket + 1, e}
	}
	d.cond.Broadcast()
}

// wait returns when all up to the ticket is durable. The first who finds it written syncs, the others wait for that.
func (d *durability) wait(ticket uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.durable.ticket < ticket {
		if d.err != nil {
			return d.err
		}
		if d.syncing || d.written.ticket < ticket {
			d.cond.Wait()
			continue
		}
		upTo := d.written // D2
		d.syncing = true
		d.mu.Unlock()
		err := d.sync()
		d.mu.Lock()
		d.syncing = false
		d.syncs++
		if err != nil && d.err == nil {
			d.err = err
		}
		if d.err == nil {
			d.durable = upTo
			close(d.changed)
			d.changed = make(chan struct{})
		}
		d.cond.Broadcast()
	}
	return nil
}

// fail wakes all who wait with an error.
func (d *durability) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	close(d.changed)
	d.changed = make(chan struct{})
	d.cond.Broadcast()
}

// notify wakes who watches.
func (d *durability) notify() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *durability) position() format.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.durable.end
}

// watch returns the durable position and a channel that is closed when it moves.
func (d *durability) watch() (format.Position, <-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.durable.end, d.changed, d.err
}

// Flush returns when every write, trim and zeroing that has returned is on stable storage. Any goroutine.
// Errors: the volume's failure; a failed sync is final until the volume is opened again.
func (v *Volume) Flush() error {
	v.flushes.Add(1)
	return v.flush()
}

func (v *Volume) flush() error {
	if err := v.failure(); err != nil {
		return err // also when all was durable before: who flushes is to know
	}
	var w write
	last := false
	v.mu.Lock()
	if v.Role() == RolePrimary {
		w, last = v.endBatchLocked(true)
	}
	ticket := v.ticket
	v.mu.Unlock()
	if last {
		v.put(w) // here and now: handing it over would cost two switches of goroutine
	}
	if err := v.dur.wait(ticket); err != nil {
		return v.fail(err)
	}
	return nil
}

// runDurable makes the tail of the log durable soon, also when no client flushes, so that mirrors get it.
func (v *Volume) runDurable(every time.Duration) {
	defer v.wg.Done()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-v.closing:
			return
		case <-t.C:
		}
		if v.Role() == RolePrimary && v.dur.position() < v.EndMark().Position {
			_ = v.flush() // the failure is kept, and told to whoever asks next
		}
	}
}

// WaitDurable returns when durable_ptr > above, or when one of also is true, which are asked again when there is a new snapshot.
// Errors: the context's, the volume's failure.
func (v *Volume) WaitDurable(ctx context.Context, above format.Position, also ...func() bool) error {
	for {
		p, changed, err := v.dur.watch()
		switch p = min(p, v.shown()); { // what a mirror has staged does not count yet
		case p > above:
			return nil
		case err != nil:
			return err
		case slices.ContainsFunc(also, func(f func() bool) bool { return f() }):
			return nil
		}
		select {
		case <-changed:
		case <-v.closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn is a lock that is held over writes and syncs. Who waits for it waits as one waits for the disk: on a channel.
type turn chan struct{}

func newTurn() turn  { return make(turn, 1) }
func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }

// syncer syncs the disk for all who need it, one after the other. A sync that failed has lost what nobody knows, of
// everybody's writes, and the next one succeeds as if nothing were: so none does any more. Were two to run at once, one
// could succeed over what the other has lost, and a checkpoint would lead to pages that are not there.
type syncer struct {
	d    disk.Disk
	turn turn
	err  error // guarded by turn
}

func (s *syncer) sync() error {
	s.turn.take()
	defer s.turn.give()
	if s.err == nil {
		s.err = s.d.Sync()
	}
	return s.err
}

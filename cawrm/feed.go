package cawrm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

const minBeat = 10 * time.Millisecond // whatever a source asks for

// feed is a connection that feeds a volume.
//
//	source --RECORDS--> runReceive --Stage--> volume <--Commit-- runCommit
//	                        '----staged----------------------------^ |
//	source <--ACK, BEAT-- runAnswer <--------committed---------------'
//
// Commits make one fdatasync for all whole epochs that were staged while the one before was running.
type feed struct {
	p     *Peer
	t     *target
	l     *link
	hello *wire.Hello

	records   int              // of an epoch that has not ended; runReceive
	chunks    uint64           // that the source has, as far as it has said; runReceive
	adopt     bool             // the volume takes its identity from this source's first frame; runReceive
	adopted   bool             // and its lineage; runReceive
	diverged  bool             // it leaves its own branch for the source's
	keep      bool             // what it has got of a jump epoch is the source's
	refers    bool             // its frames may refer to what the volume shows
	tail      bool             // it has records that the source lacks
	staged    chan struct{}    // an epoch was staged as a whole; closed when there will be no more
	answer    chan struct{}    // committed has moved
	reply     chan []byte      // a frame, in answer to one of the source's
	checker   *checker         // of CHECKs, once there was one; runReceive
	opened    chan *aodi.Still // for it
	say       chan []byte      // frames that it has for runAnswer
	over      chan struct{}    // runAnswer has ended
	quit      chan struct{}
	done      chan struct{} // the volume has nothing staged and is free for another feed
	committed atomic.Uint64
	contact   atomic.Int64 // unix ns

	mu     sync.Mutex
	err    error // the first, of runReceive, runCommit and stop
	broken error // why nothing more can be answered
}

func newFeed(p *Peer, t *target, l *link, h *wire.Hello) *feed {
	f := &feed{p: p, t: t, l: l, hello: h, chunks: uint64(h.Size) / format.ChunkSize, staged: make(chan struct{}, 1), answer: make(chan struct{}, 1), reply: make(chan []byte, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
		opened: make(chan *aodi.Still, 1), say: make(chan []byte), over: make(chan struct{})}
	f.contact.Store(time.Now().UnixNano())
	return f
}

func (f *feed) position() aodi.Position { return aodi.Position(f.committed.Load()) }

// begin lets reads go on, unless the feed was stopped while it was being welcomed.
func (f *feed) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.l.renewReads()
	}
}

// stop ends the feed with a reason. Any goroutine; the first reason counts.
func (f *feed) stop(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err = err
	}
	f.mu.Unlock()
	f.l.endReads(0)
}

// run feeds the volume until the link or the volume fails, or stop. Then the volume stands at the last whole epoch that
// arrived, and is free. The error says why it ended.
func (f *feed) run(r *wire.Reader) error {
	if f.refers {
		r.Resolve(f.resolve)
	}
	var commit, answer sync.WaitGroup
	commit.Go(f.runCommit)
	answer.Go(f.runAnswer)
	f.stop(f.cause(f.runReceive(r))) // no news when it was stopped
	close(f.staged)
	commit.Wait()
	// Nobody stages or commits any more. What is left is the beginning of an epoch that will be sent again, from
	// its first record on.
	if err := f.t.v.Unstage(); err != nil {
		f.stop(f.failed(err))
	}
	close(f.quit)
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	f.t.release(f, err)
	_ = f.l.SetWriteDeadline(time.Now().Add(drainTime)) // an answer on a dead link must not hold up the end
	answer.Wait()
	f.endChecks()
	return err
}

// cause is what was heard, or why a write failed when nothing was heard after it.
func (f *feed) cause(received error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil && errors.Is(received, os.ErrDeadlineExceeded) {
		return f.broken
	}
	return received
}

func (f *feed) failed(err error) error {
	return refusef(wire.CodeFailed, "mirror %q: %v", f.t.name, err)
}

// runReceive stages what arrives.
func (f *feed) runReceive(r *wire.Reader) error {
	var rec wire.Records
	for {
		t, err := r.Next(wire.Of(wire.TypeRecords, wire.TypeSnapshot, wire.TypeHandover, wire.TypeBeat, wire.TypeRefuse, wire.TypeCheck))
		if err != nil {
			return f.lost(err)
		}
		f.contact.Store(time.Now().UnixNano())
		if t == wire.TypeRefuse {
			return told(r)
		}
		// Any other first frame means that the source has taken the welcome: only now is an empty mirror bound to it.
		if err := f.adoptOnce(); err != nil {
			return f.failed(err)
		}
		if t == wire.TypeCheck {
			c, err := r.Check()
			if err != nil {
				return f.lost(err)
			}
			if err := f.check(c); err != nil {
				return err
			}
			continue
		}
		if t == wire.TypeHandover {
			return f.takeOver(r.Handover())
		}
		if t == wire.TypeSnapshot {
			if err := f.heed(r); err != nil {
				return err
			}
		}
		if t != wire.TypeRecords {
			continue
		}
		if err := r.Records(&rec); err != nil {
			return f.lost(err)
		}
		if err := f.stage(&rec); err != nil {
			return err
		}
	}
}

// lost makes a reason of what the reader says; a frame without sense is told to the source.
func (f *feed) lost(err error) error {
	switch why := f.l.because(nil); {
	case why != nil:
		return why
	case err == io.EOF:
		return fmt.Errorf("the source hung up")
	case errors.Is(err, wire.ErrMagic), errors.Is(err, wire.ErrChecksum), errors.Is(err, wire.ErrInvalid),
		errors.Is(err, wire.ErrUnexpected):
		return refusef(wire.CodeGarbage, "mirror %q: %v", f.t.name, err)
	case errors.Is(err, wire.ErrReference) && f.t.v.Status().Failed != nil:
		return f.failed(f.t.v.Status().Failed)
	case errors.Is(err, wire.ErrReference):
		return refusef(wire.CodeReference, "mirror %q: %v", f.t.name, err)
	}
	return fmt.Errorf("link lost: %w", err)
}

func (f *feed) adoptOnce() error {
	if f.adopted {
		return nil
	}
	f.adopted = true
	if f.adopt {
		return f.t.v.Adopt(f.hello.Volume, f.hello.Size, f.hello.Lineage)
	}
	name := ""
	if f.diverged && f.tail {
		name = tailName(f.t.v, time.Now())
	}
	kept, err := f.t.v.Follow(f.hello.Lineage, f.diverged, f.keep, name)
	if kept {
		f.t.keptTail(name)
		f.p.tell(EventTail, f.t.name, "what only this volume has is kept as the snapshot %s", name)
		f.p.log.Warn("what only this volume has is kept as a snapshot, and the volume becomes its source's mirror",
			"name", f.t.name, "snapshot", name, "source", Head{f.hello.Lineage, f.hello.DurablePtr}.String())
	}
	return err
}

func (f *feed) stage(rec *wire.Records) error {
	for i := range rec.Entries {
		e := &rec.Entries[i]
		if e.Kind == format.KindSize { // it has grown since it said hello
			f.chunks = max(f.chunks, e.LBA+uint64(e.Count))
		}
		if e.LBA+uint64(e.Count) > f.chunks {
			return refusef(wire.CodeGarbage, "mirror %q: record %d is beyond the end of the volume: chunks [%d, %d) of %d",
				f.t.name, e.Birth, e.LBA, e.LBA+uint64(e.Count), f.chunks)
		}
	}
	if f.records += len(rec.Entries); f.records > maxEpoch && !rec.Jump { // a jump epoch is not kept in memory
		return refusef(wire.CodeGarbage, "mirror %q: an epoch of more than %d records", f.t.name, maxEpoch)
	}
	// What the source says of its durable_ptr is not needed here: it ships nothing beyond it (I1).
	b := aodi.LogBatch{First: rec.First, End: rec.End, Time: rec.Time, Jump: rec.Jump, Entries: rec.Entries, Data: rec.Data}
	if err := f.t.v.Stage(&b, rec.Commit); err != nil {
		return f.failed(err)
	}
	if rec.Commit {
		f.records = 0
		select {
		case f.staged <- struct{}{}:
		default: // the commit that was asked for has not begun: it will take this epoch too
		}
	}
	return nil
}

// runCommit commits what is staged, and once more after the last frame: whole epochs need not be sent again.
func (f *feed) runCommit() {
	for range f.staged {
		p, err := f.t.v.Commit()
		if err != nil {
			f.stop(f.failed(err))
			continue // until runReceive has seen it
		}
		f.committed.Store(uint64(p))
		select {
		case f.answer <- struct{}{}:
		default: // the answer that was asked for has not been sent: it will say this position
		}
	}
}

// runAnswer says what is committed, and that this side is alive while nothing is. It is apart from the commits,
// so that a disk that takes long is not taken for a dead link.
func (f *feed) runAnswer() {
	defer close(f.over)
	interval := max(f.hello.KeepAlive, minBeat)
	beat := time.NewTimer(interval)
	defer beat.Stop()
	var frame []byte
	for {
		select {
		case frame = <-f.say:
		case <-f.answer:
			frame = wire.AppendAck(frame[:0], f.position())
		case kept := <-f.reply:
			frame = append(frame[:0], kept...)
		case <-beat.C:
			frame = wire.AppendBeat(frame[:0])
		case <-f.quit:
			return
		}
		if err := f.l.say(frame, f.p.cfg.ReadTimeout); err != nil {
			f.mu.Lock()
			f.broken = f.lost(err)
			f.mu.Unlock()
			f.l.endReads(drainTime) // time to hear why the source hung up
			return
		}
		beat.Reset(interval)
	}
}

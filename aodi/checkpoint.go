package aodi

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"cawrm/aodi/format"
)

// A checkpoint, step by step, with what a crash after the step leaves:
//
//	freeze   in memory: the records of the map end at P; its pages get places, the generation closes
//	wait     durable_ptr >= P (V3)
//	write    the pages, the catalog, summaries of filled meta segments: nothing refers to them yet;
//	         a crash leaves the checkpoint before, and the same places are used again
//	sync     they are durable
//	flip     one meta chunk, the older of two: torn, it has a bad checksum and the other one counts
//	sync     the checkpoint is the one that recovery takes
//	settle   in memory: references lead to the disk, the frozen pages' memory and dead segments are free
//
// A segment that dies is free only after the flip that says so is durable: until then the checkpoint before
// may be the one that recovery takes, and it refers to the segment (V4).

// checkpointer is the state of checkpoints.
type checkpointer struct {
	run  turn // one at a time
	seq  uint64
	keep int // free segments that kept their space after the last one

	space     sync.Mutex      // one reserveMeta at a time
	place     format.LogPlace // where recovery goes on from the last one; guarded by Volume.mapMu, like the three below
	head      metaHead
	readyNext uint32   // the segment whose space was reserved for head.next
	spare     []uint32 // segments taken and reserved for a checkpoint that needs more

	err      error // of the last one that ran by itself; guarded by Volume.mu
	wake     chan struct{}
	quit     chan struct{}
	quitOnce sync.Once
	done     chan struct{}
}

// metaHead is where map pages go.
type metaHead struct {
	segment, chunk, next uint32
	slots                []format.Entry // of the segment so far
}

// Checkpoint writes one now. Any goroutine.
func (v *Volume) Checkpoint() error { return v.checkpoint(0) }

// FreeDead writes a checkpoint so that dead segments are free, if there is space for another one behind it, or it frees that: the last one
// is not spent on what may bring nothing. It returns how many came back. Any goroutine. Errors: ENOSPC, the volume's failure.
func (v *Volume) FreeDead() (int, error) {
	if err := v.reserveMeta(v.mapMemory()/chunkSize + catalogSlack); err != nil && !(errors.Is(err, syscall.ENOSPC) && v.freesAnother()) {
		return 0, err
	}
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	f, err := v.checkpointLocked(0, nil, nil)
	if err != nil {
		return 0, err
	}
	return len(f.dead), nil
}

// freesAnother tells whether there are so many dead segments that a checkpoint after the one that frees them fits there: it has few
// pages, since this one has written those that cleaning has brought into memory.
func (v *Volume) freesAnother() bool {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return int64(len(v.segs.dead)) >= 2+2*(catalogSlack+v.snapshotChunksLocked())/int64(v.geo.Slots())
}

func (c *checkpointer) request() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *checkpointer) stop(v *Volume) {
	c.quitOnce.Do(func() { close(c.quit) })
	<-c.done
}

// runCheckpoint writes a checkpoint after so many bytes, after so long if there is anything new, and on request.
func (v *Volume) runCheckpoint() {
	defer close(v.ckpt.done)
	tick := time.NewTicker(min(v.opt.CheckpointInterval, 100*time.Millisecond))
	defer tick.Stop()
	last := v.now()
	lastWrite, rested := last, false
	for {
		select {
		case <-v.ckpt.quit:
			return
		case <-v.ckpt.wake: // often while the one that was asked for was under way
		case <-tick.C:
		}
		bytes := v.sinceCheckpoint.Load()
		if bytes > 0 {
			lastWrite, rested = v.now(), false
		}
		due := bytes >= v.checkpointBytes() || v.mapMemory() > v.opt.MapMemory/2 ||
			bytes > 0 && v.now().Sub(last) >= v.opt.CheckpointInterval
		cleaned := v.hasCleaner()
		if (due || !cleaned && v.relief.waiting.Load() > 0) && v.failure() == nil {
			var err error
			if cleaned {
				err = v.Checkpoint()
			} else { // nobody else brings space back
				v.Round(func() bool {
					if due || v.relief.waiting.Load() == 0 {
						err = v.Checkpoint()
					}
					if err == nil && v.relief.waiting.Load() > 0 {
						err = v.relieve()
					}
					return err == nil || errors.Is(err, syscall.ENOSPC)
				})
			}
			v.mu.Lock()
			v.ckpt.err = err
			v.room.Broadcast()
			v.mu.Unlock()
			last = v.now()
		} else if bytes == 0 && !rested && v.now().Sub(lastWrite) >= v.restDue() && v.failure() == nil {
			if err := v.rest(); err != nil {
				v.log.Warn("space was not given back", "err", err)
			}
			rested = true
		}
	}
}

func (v *Volume) checkpoint(flags uint32) error { return v.checkpointWith(flags, nil) }

// checkpointWith makes a change of who the volume is, under its locks, as a part of the checkpoint.
func (v *Volume) checkpointWith(flags uint32, change func()) error {
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	_, err := v.checkpointLocked(flags, nil, change)
	return err
}

// checkpointLocked is called with ckpt.run held, and returns what it wrote. snap: a snapshot to make, or nil.
func (v *Volume) checkpointLocked(flags uint32, snap *snapshot, change func()) (*frozen, error) {
	if err := v.failure(); err != nil {
		return nil, err
	}
	if err := v.reserveMeta(0); err != nil {
		v.log.Warn("checkpoint postponed", "err", err)
		return nil, err
	}
	f, err := v.freeze(flags, snap, change)
	if err == nil {
		err = v.dur.wait(f.ticket)
	}
	if err == nil {
		err = v.writeFrozen(f)
	}
	if err == nil {
		err = v.flip(&f.meta)
	}
	if err == nil && f.alone {
		err = v.dropBefore(&f.meta)
	}
	if err != nil {
		// The generation is closed and its places are given out: only opening again gets back to a known state.
		return nil, v.fail(err)
	}
	v.settle(f)
	return f, nil
}

// reserveMeta reserves the space that a checkpoint of the pages in memory and of ahead more needs. It runs beside a
// checkpoint. Without space a checkpoint is postponed and harms nothing.
func (v *Volume) reserveMeta(ahead int64) error {
	c := &v.ckpt
	c.space.Lock()
	defer c.space.Unlock()
	for {
		v.mapMu.Lock()
		seg, next, enough, err := v.nextReserveLocked(ahead)
		v.mapMu.Unlock()
		if enough || err != nil {
			return err
		}
		err = v.makeReady(seg, false)
		v.mapMu.Lock()
		switch {
		case err == nil && next:
			c.readyNext = seg
		case err == nil:
			c.spare = append(c.spare, seg)
		case !next:
			delete(v.segs.taken, seg) // it is free, and found again by the next try
		}
		v.mapMu.Unlock()
		if err != nil {
			return err
		}
	}
}

// nextReserveLocked picks the segment that is to be reserved next: the one in which map pages go on, or a spare one.
func (v *Volume) nextReserveLocked(ahead int64) (seg uint32, next, enough bool, err error) {
	c := &v.ckpt
	if c.readyNext != c.head.next {
		return c.head.next, true, false, nil
	}
	slots := int64(v.geo.Slots())
	need := v.mapMemory()/chunkSize + catalogSlack + ahead + 2*v.snapshotChunksLocked() // where they do not fit a segment its rest is lost
	need += need/format.MaxEntries + 2
	if need <= slots-int64(c.head.chunk)+slots*int64(1+len(c.spare)) {
		return 0, false, true, nil
	}
	seg, _, err = v.segs.take(v.segmentLimit(), 0)
	return seg, false, false, err
}

// snapshotChunksLocked bounds what the snapshots, and one more, take in the catalog.
func (v *Volume) snapshotChunksLocked() int64 {
	return int64(len(v.snaps)+1)*(format.SnapshotBytes+MaxSnapshotName)/chunkSize + 1
}

// catalogSlack is room for the rest of the catalog and for pages of the segment table that placing the others brings in.
const catalogSlack = format.MaxCatalog/chunkSize/8 + 4

// flip makes a checkpoint the newest.
func (v *Volume) flip(m *format.Meta) error {
	b := make([]byte, chunkSize)
	m.Encode(b)
	if err := v.syncer.sync(); err != nil {
		return err
	}
	return v.putMeta(b, m.Seq)
}

// putMeta writes the meta chunk of a checkpoint, durably.
func (v *Volume) putMeta(b []byte, seq uint64) error {
	if err := v.d.WriteCached(b, int64(1+seq%2)*chunkSize); err != nil {
		return err
	}
	return v.syncer.sync()
}

// dropBefore takes away the checkpoint before m, which is durable: should m be damaged, opening finds none, and not a map that leads to what is
// not there any more. A crash in between leaves both, and m counts.
func (v *Volume) dropBefore(m *format.Meta) error { return v.putMeta(make([]byte, chunkSize), m.Seq-1) }

// unsettled are the maps that lead to pages in memory.
func (v *Volume) unsettled() []*head {
	return slices.DeleteFunc(v.roots(), func(h *head) bool { return !inMemory(h.tree.root) })
}

// settle makes the references lead to the disk and gives back the memory of the frozen pages. Higher levels go
// first, so that most lower pages are found to be out of reach already; the lock is given up now and then.
func (v *Volume) settle(f *frozen) {
	for at := len(f.pages); at > 0; {
		v.mapMu.Lock()
		maps := v.unsettled()
		for n := 0; n < 1024 && at > 0; n++ {
			at--
			p := f.pages[at]
			v.arena.info[p.page].final = p.final
			if p.tree.id != treeMap {
				p.tree.settle(p.page)
				continue
			}
			for _, h := range maps { // cleaning lets maps share pages
				h.tree.settle(p.page)
			}
		}
		v.mapMu.Unlock()
	}
	v.mapMu.Lock()
	for _, p := range f.pages {
		v.arena.release(p.page)
	}
	v.ckpt.head, v.ckpt.place = f.head, f.meta.Log
	for _, seg := range f.sealed {
		delete(v.segs.young, seg)
	}
	v.mapMu.Unlock()
	v.reclaim(append(f.dead, f.void...))
	v.ckpt.keep = max(2*f.opened, v.ckpt.keep/2, minKept)
	v.punch(v.ckpt.keep)
}

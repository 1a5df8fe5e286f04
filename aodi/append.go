package aodi

import (
	"fmt"
	"sync/atomic"
	"time"

	"cawrm/aodi/format"
	recovery "cawrm/recover"

	"github.com/edsrzf/mmap-go"
	"github.com/ncw/directio"
)

// The log, from a record to the disk:
//
//	WriteAt, Trim, Stage          copy the record into the open batch, under mu
//	   closeBatchLocked           when it is full, or a flush wants it: header, ticket, queue
//	   runAppend (several)        write it at its place, in any order; a flush writes the batch that it closed itself
//	   durability.complete        the written prefix grows over it
//	   durability.wait            one fdatasync makes the prefix durable, for all who wait
//
// A batch's buffer stays resident after it was written, until the buffer is needed again: what was just
// written is read from memory, by clients and by the sync loops of mirrors.

const (
	batchBuffers = 32 // 21 MiB: what may be accepted and not yet written, and what is kept resident
	appenders    = 3  // batches on their way to the disk at a time
	batchBytes   = (1 + format.MaxEntries) * format.ChunkSize
)

// batch is a batch in memory. Its fields are guarded by Volume.mu until it is queued and immutable then;
// readers reach it through Volume.resident, under mapMu.
type batch struct {
	buf     []byte // header chunk, data chunks
	hdr     format.BatchHeader
	segment uint32
	chunk   uint32 // of the header
	phys    format.Phys
	limit   int // data chunks that fit the segment
	written atomic.Bool
}

// makeBuffers makes the buffers of all batches: page-aligned, as O_DIRECT wants, and outside the Go heap.
func (v *Volume) makeBuffers() error {
	m, err := mmap.MapRegion(nil, batchBuffers*batchBytes, mmap.RDWR, mmap.ANON, 0)
	if err != nil {
		return fmt.Errorf("memory for %d batches: %w", batchBuffers, err)
	}
	v.buffers = m
	for i := range batchBuffers {
		v.spare = append(v.spare, &batch{
			buf: m[i*batchBytes : (i+1)*batchBytes : (i+1)*batchBytes],
			hdr: format.BatchHeader{Entries: make([]format.Entry, 0, format.MaxEntries)},
		})
	}
	return nil
}

func (b *batch) full() bool {
	return len(b.hdr.Entries) == format.MaxEntries || int(b.hdr.Data) == b.limit
}

// dataRoom is the number of data records that still fit.
func (b *batch) dataRoom() int {
	return min(format.MaxEntries-len(b.hdr.Entries), b.limit-int(b.hdr.Data))
}

// holds tells whether a physical chunk lies in the batch, so that it must be read from there.
func (b *batch) holds(p format.Phys) bool { return p > b.phys && p <= b.phys+format.Phys(b.limit) }

func (b *batch) data(p format.Phys) []byte {
	o := int(p-b.phys) * format.ChunkSize
	return b.buf[o : o+format.ChunkSize]
}

// write is what runAppend puts on the disk: a batch, or the summary of a segment (batch is nil).
type write struct {
	batch  *batch
	buf    []byte
	off    int64
	ticket uint64
	end    format.Position
}

// openBatchLocked returns the batch that takes the next record. It waits, with mu released, for a buffer
// and for a segment that is ready, and for those that came before and wait (line.go). frees: the record frees more space than it takes,
// and waits for none of them. Errors: ENOSPC, and the volume's failure.
func (v *Volume) openBatchLocked(frees bool) (*batch, error) {
	var wait spaceWait
	defer wait.end(v)
	var p place
	defer v.line.leave(&p, v.room)
	for {
		if err := v.failure(); err != nil {
			return nil, err
		}
		if !frees && !v.line.turn(&p) {
			v.room.Wait()
			continue
		}
		if b := v.batch; b != nil {
			if len(b.hdr.Entries) == 0 { // it was opened for a record that did not come
				b.hdr.Time = v.now().UnixNano()
				b.hdr.Flags &^= format.FlagJump
				if v.jumpEnd > 0 {
					b.hdr.Flags |= format.FlagJump
				}
			}
			return b, nil
		}
		if !frees {
			v.line.enter(&p)
		}
		if !recovery.Fits(v.geo, v.head.Chunk) {
			if waited, err := v.nextSegmentLocked(frees, &wait); err != nil {
				return nil, err
			} else if waited {
				continue
			}
		}
		wait.end(v)
		b := v.takeBufferLocked()
		if b == nil {
			v.room.Wait()
			continue
		}
		v.startBatchLocked(b)
		return b, nil
	}
}

// canAppendLocked tells whether n chunks can be appended without waiting.
func (v *Volume) canAppendLocked(n int) bool {
	if v.line.any() {
		return false
	}
	if v.batch != nil && v.batch.dataRoom() >= n {
		return true
	}
	at := v.head.Chunk
	if v.batch != nil {
		at += 1 + uint32(v.batch.hdr.Data)
	}
	// resident changes only under mu and mapMu, so mu is enough to look at it.
	return recovery.Fits(v.geo, at+2+uint32(n)) && (len(v.spare) > 1 || len(v.resident) > 0 && v.resident[0].written.Load())
}

// takeBufferLocked returns a buffer that nothing needs: a spare one, or the oldest resident batch's if it was written.
func (v *Volume) takeBufferLocked() *batch {
	if n := len(v.spare); n > 0 {
		b := v.spare[n-1]
		v.spare = v.spare[:n-1]
		return b
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	if len(v.resident) == 0 || !v.resident[0].written.Load() {
		return nil
	}
	b := v.resident[0]
	v.resident = append(v.resident[:0], v.resident[1:]...)
	return b
}

func (v *Volume) startBatchLocked(b *batch) {
	left := int(v.geo.Slots()-v.head.Chunk) - 1
	b.hdr = format.BatchHeader{Kind: format.BatchLog, Tag: v.tag, Seq: v.head.Seq, First: v.logEnd, Time: v.now().UnixNano(),
		Logged: v.logged, Incarnation: v.incarnation, Next: v.head.Next, Entries: b.hdr.Entries[:0]}
	if v.restart {
		b.hdr.Flags, v.restart = format.FlagRestart, false
	}
	if v.jumpEnd > 0 {
		b.hdr.Flags |= format.FlagJump
	}
	b.segment, b.chunk, b.phys = v.head.Segment, v.head.Chunk, v.geo.Phys(v.head.Segment, v.head.Chunk)
	b.limit = min(left, format.MaxEntries)
	b.written.Store(false)
	v.mapMu.Lock()
	v.resident = append(v.resident, b)
	v.mapMu.Unlock()
	v.batch = b
}

// addDataLocked copies one chunk into the open batch, behind those that it has.
func (v *Volume) addDataLocked(b *batch, e format.Entry, p []byte) {
	b.hdr.Data++
	b.hdr.Entries = append(b.hdr.Entries, e)
	copy(b.data(b.phys+format.Phys(b.hdr.Data)), p)
	v.slots[b.chunk+uint32(b.hdr.Data)] = e
	v.logged++
}

// closeBatchLocked ends the open batch and queues it. commit: the records up to here may be shown.
func (v *Volume) closeBatchLocked(commit bool) {
	if w, ok := v.endBatchLocked(commit); ok {
		v.queue <- w // as large as all that can be under way: never waits
	}
}

// endBatchLocked ends the open batch; the caller has it written.
func (v *Volume) endBatchLocked(commit bool) (write, bool) {
	b := v.batch
	if b == nil || len(b.hdr.Entries) == 0 && v.Role() == RolePrimary && v.logEnd == b.hdr.First {
		return write{}, false // an empty batch stays open; a mirror's can carry a commit, and a promotion's a gap
	}
	v.batch, v.void = nil, false
	if commit && (v.jumpEnd == 0 || v.coming.whole) { // a rollback's batches are a client's that commit nothing
		b.hdr.Flags |= format.FlagCommit
	}
	b.hdr.End, b.hdr.PrevCRC = max(v.logEnd, v.jumpEnd), v.head.PrevCRC
	crc := b.hdr.Encode(b.buf)
	v.slots[b.chunk] = format.Entry{Kind: format.KindHeader}
	v.head.PrevCRC, v.head.Seq, v.head.Chunk = crc, v.head.Seq+1, v.head.Chunk+b.hdr.Chunks()
	if v.sinceCheckpoint.Add(int64(b.hdr.Chunks())*format.ChunkSize) >= v.checkpointBytes() {
		v.ckpt.request()
	}
	v.ticket++
	// Not the header's end: a part of a jump epoch says where that leads, and who takes its place has records below it.
	return write{batch: b, buf: b.buf[:int(b.hdr.Chunks())*format.ChunkSize],
		off: int64(b.phys) * format.ChunkSize, ticket: v.ticket, end: v.logEnd}, true
}

// nextSegmentLocked seals the head's segment and moves the head on. It reports that it waited, with mu released,
// so that the caller looks again. Errors: ENOSPC.
func (v *Volume) nextSegmentLocked(frees bool, w *spaceWait) (waited bool, err error) {
	keep := v.checkpointKeep()
	if !frees {
		keep += v.coldReserve()
		if forGood, err := v.fullLocked(); forGood {
			return false, err
		} else if err != nil {
			return true, v.awaitSpaceLocked(w, err)
		}
	}
	if ready, err := v.ready.check(v.head.Next); err != nil {
		return true, v.awaitSpaceLocked(w, err)
	} else if !ready {
		v.room.Wait()
		return true, nil
	}
	if wait := v.paceLocked(keep); wait > 0 { // the cleaner was told when the last one was taken: each of its rounds wakes us
		t := time.AfterFunc(wait, func() { v.mu.Lock(); defer v.mu.Unlock(); v.room.Broadcast() })
		defer t.Stop()
		v.room.Wait()
		return true, nil
	}
	v.mapMu.Lock()
	after, written, err := v.segs.take(v.segmentLimit(), keep)
	v.mapMu.Unlock()
	if err != nil {
		return true, v.awaitSpaceLocked(w, err)
	}
	v.segs.chance() // what it leaves can hold nothing live
	v.relief.broken = 0
	v.taken = v.now()
	v.relief.request()
	v.sealLocked()
	v.head.Segment, v.head.Chunk, v.head.Next = v.head.Next, 0, after
	v.ready.want(after, v.flushes.Swap(0) > zeroAheadFlushes && !written)
	return false, nil
}

// sealLocked queues the summary of the head's segment. The segment's row says sealed when the map has its records.
func (v *Volume) sealLocked() {
	s := format.Summary{Kind: format.BatchLog, Tag: v.tag, Segment: v.head.Segment, Incarnation: v.incarnation,
		MaxPosition: max(v.logEnd, v.jumpEnd), Slots: v.slots}
	buf := directio.AlignedBlock(int(v.geo.SummaryChunks) * format.ChunkSize)
	s.Encode(v.geo, buf)
	clear(v.slots)
	v.ticket++
	v.queue <- write{buf: buf, off: int64(v.geo.Phys(v.head.Segment, v.geo.Slots())) * format.ChunkSize, ticket: v.ticket, end: v.logEnd}
}

// runAppend writes what is queued.
func (v *Volume) runAppend() {
	defer v.wg.Done()
	for w := range v.queue {
		v.put(w)
	}
}

// put writes a batch or a summary. A write that fails is final for the volume: what was accepted behind it can no
// longer be promised.
func (v *Volume) put(w write) {
	err := v.failure()
	if err == nil {
		if err = v.d.WriteAt(w.buf, w.off); err != nil {
			v.fail(err)
		}
	}
	if err == nil {
		if w.batch != nil {
			w.batch.written.Store(true) // before it counts: who sees it durable finds it written
		}
		v.dur.complete(w.ticket, w.end)
	}
	v.mu.Lock()
	v.room.Broadcast()
	v.mu.Unlock()
}

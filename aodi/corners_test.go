package aodi_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// stagedBatch makes an epoch of n chunks.
func stagedBatch(first aodi.Position, n int, lba func(i int) uint64, seed uint64) *aodi.LogBatch {
	b := &aodi.LogBatch{First: first, End: first + aodi.Position(n), Time: time.Now().UnixNano()}
	for i := range n {
		p := stamped(seed + uint64(i))
		b.Data = append(b.Data, p...)
		b.Entries = append(b.Entries, format.Entry{Birth: first + aodi.Position(i), LBA: lba(i), Kind: format.KindData, Count: 1, CRC: format.Sum(p)})
	}
	return b
}

// TestJumpGivenUpInASegment ensures that a segment which begins with a part of a jump epoch that was given up, and goes on with
// epochs in the order of the log, is what the checker takes for sound.
func TestJumpGivenUpInASegment(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<30, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	dst := newMirror(t, dm, 32, src, quiet)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(i int) uint64 { return uint64(i) }
	part := stagedBatch(0, 3, at, 1)
	part.End, part.Jump = 500, true
	for i := range part.Entries {
		part.Entries[i].Birth = 490 + aodi.Position(i)
	}
	must(dst.Stage(part, false))
	must(dst.Unstage())
	_, err := dst.Follow(src.Info().Lineage, false, false, "") // an older source, which has not got so far
	must(err)
	for i := range 6 {
		must(dst.Stage(stagedBatch(aodi.Position(10*i), 10, at, uint64(1000*i)), true))
		_, err := dst.Commit()
		must(err)
	}
	must(dst.Close())
	check(t, dm)
}

// TestVoidSegmentIsHeld ensures that a segment which holds only void batches is not given to map pages before a
// checkpoint that does not lead through it is durable: a second crash would end the log there.
func TestVoidSegmentIsHeld(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<30, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	dst := newMirror(t, dm, 32, src, quiet)
	defer dst.Close()
	far := func(i int) uint64 { return uint64(i) * 512 }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(dst.Stage(stagedBatch(0, 120, far, 1), true))
	_, err := dst.Commit()
	must(err)
	for range 3 { // three times the link breaks in the middle of an epoch
		must(dst.Stage(stagedBatch(120, 60, far, 1000), false))
		must(dst.Unstage())
	}
	must(dst.Stage(stagedBatch(120, 10, far, 2000), true))
	end, err := dst.Commit()
	must(err)
	t.Log("acknowledged", end)
	must(dm.Sync())
	crashed := dm.Crash(newRand(1)) // nothing is unsynced
	t.Cleanup(crashed.Free)
	var second *disk.Memory
	var armed atomic.Bool
	armed.Store(true)
	f := &disk.Faulty{Disk: crashed, Rule: func(op disk.Op, off int64, n int) error {
		if armed.Load() && op == disk.OpWrite && off < 3*chunk && second == nil {
			second = crashed.Crash(newRand(2)) // power fails right before the flip
			return syscall.EIO
		}
		return nil
	}}
	if _, err := aodi.OpenOn(f, quiet); err == nil {
		t.Fatal("opened")
	}
	t.Cleanup(second.Free)
	v := open(t, second, quiet)
	defer v.Close()
	if got, _ := v.Pointers(); got != end {
		t.Errorf("after two crashes the mirror stands at %d, it had acknowledged %d", got, end)
	}
}

// TestReadAheadEndsAtWhatIsWritten ensures that a reader of the log does not remember space that was not written yet when the
// head had moved on to another segment.
func TestReadAheadEndsAtWhatIsWritten(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 64<<20, 256)
	var block atomic.Bool
	gate := make(chan struct{})
	var once sync.Once
	blocked := make(chan struct{})
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpWrite && block.Load() {
			hit := false
			once.Do(func() { hit = true })
			if hit {
				close(blocked)
				<-gate
			}
		}
		return nil
	}}
	v := open(t, f, quiet)
	defer v.Close()
	i := uint64(0)
	put := func() {
		t.Helper()
		if err := v.WriteAt(stamped(i+1), int64(i)*chunk, true); err != nil {
			t.Fatal(err)
		}
		i++
	}
	for range 60 {
		put()
	}
	_, durable := v.Pointers()
	block.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { put() })
	<-blocked
	block.Store(false)
	if err := v.WriteAt(make([]byte, 300*chunk), 32<<20, false); err != nil { // the head goes on to the next segment
		t.Fatal(err)
	}
	r, err := v.ReadLog(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b aodi.LogBatch
	if err := r.Next(durable, 1, &b); err != nil {
		t.Fatal(err)
	}
	close(gate)
	wg.Wait()
	for range 60 { // what was under way leaves memory
		put()
	}
	_, durable = v.Pointers()
	for r.Position() < durable {
		if err := r.Next(durable, 1<<20, &b); err != nil {
			t.Fatalf("at %d: %v", r.Position(), err)
		}
	}
}

// TestCommitIsWholeOnReadError ensures that a commit that meets an unreadable map page shows nothing of its epoch.
func TestCommitIsWholeOnReadError(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<30, 256)
	src := open(t, ds, quiet)
	defer src.Close()
	dst := newMirror(t, dm, 256, src, quiet)
	far := func(i int) uint64 { return uint64(i) * 512 }
	if err := dst.Stage(stagedBatch(0, 200, far, 1), true); err != nil {
		t.Fatal(err)
	}
	if _, err := dst.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	var reads atomic.Int64
	f := &disk.Faulty{Disk: dm, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpRead && armed.Load() && reads.Add(1) > 100 {
			return syscall.EIO
		}
		return nil
	}}
	dst = open(t, f, quiet)
	if err := dst.Stage(stagedBatch(200, 200, far, 5000), true); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	_, err := dst.Commit()
	armed.Store(false)
	if err == nil {
		t.Fatal("commit succeeded")
	}
	var old, new int
	p := make([]byte, chunk)
	for i := range 200 {
		if err := dst.ReadAt(p, int64(far(i))*chunk); err != nil {
			t.Fatal(err)
		}
		switch {
		case bytes.Equal(p, stamped(uint64(1+i))):
			old++
		case bytes.Equal(p, stamped(uint64(5000+i))):
			new++
		}
	}
	end, _ := dst.Pointers()
	dst.Close()
	if old > 0 && new > 0 {
		t.Errorf("the mirror shows %d chunks of the epoch before and %d of the new one; end_ptr %d, commit: %v", old, new, end, err)
	}
}

// TestFailedTrimIsInNoCheckpoint ensures that a discard that fails in its middle, at a page of the map that cannot be read, is not made
// durable in part by a checkpoint that was waiting for it: no record says that it was there.
func TestFailedTrimIsInNoCheckpoint(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<30, 256)
	v := open(t, d, quiet)
	for i := range 20 {
		if err := v.WriteAt(stamped(uint64(1+i)), int64(i)*512*chunk, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	var reads atomic.Int64
	checkpoint := make(chan error, 1)
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
		if op != disk.OpRead || !armed.Load() || reads.Add(1) != 10 {
			return nil
		}
		go func() { checkpoint <- v.Checkpoint() }()
		time.Sleep(50 * time.Millisecond) // it waits for the map then
		return syscall.EIO
	}}
	v = open(t, f, quiet)
	if err := v.WriteAt(stamped(100), 600*chunk, true); err != nil { // something for it to write
		t.Fatal(err)
	}
	armed.Store(true)
	err := v.Trim(0, 1<<30, false)
	armed.Store(false)
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("the discard: %v", err)
	}
	if err := <-checkpoint; !errors.Is(err, syscall.EIO) {
		t.Errorf("the checkpoint: %v", err)
	}
	v.Close()
	v = open(t, d, quiet)
	defer v.Close()
	p := make([]byte, chunk)
	for i := range 20 {
		if err := v.ReadAt(p, int64(i)*512*chunk); err != nil || !bytes.Equal(p, stamped(uint64(1+i))) {
			t.Errorf("chunk %d of a discard that has failed is gone (%v)", i*512, err)
		}
	}
}

// TestTrimOfNothing ensures that a discard of holes neither gives the next record its time nor takes log.
func TestTrimOfNothing(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<20, 64)
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	opt := quiet
	opt.Now = func() time.Time { return time.Unix(0, now.Load()) }
	v := open(t, d, opt)
	defer v.Close()
	if err := v.Trim(0, 1<<20, false); err != nil {
		t.Fatal(err)
	}
	now.Add(int64(time.Hour))
	if err := v.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	m, err := v.MarkAt(0)
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Unix(0, now.Load()).Sub(m.Time); age > time.Second {
		t.Errorf("a record that was accepted right now is %v old", age)
	}
	before := v.Status().PhysicalBytes
	for range 5000 {
		if err := v.Trim(chunk, chunk, true); err != nil {
			t.Fatal(err)
		}
	}
	if after := v.Status().PhysicalBytes; after > before+4<<20 {
		t.Errorf("5000 trims of nothing took %d bytes of log", after-before)
	}
}

// TestWaitDurableOnMirror ensures that what a mirror has staged does not count as durable before it is shown.
func TestWaitDurableOnMirror(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 64<<20, 256)
	src := open(t, ds, quiet)
	defer src.Close()
	dst := newMirror(t, dm, 256, src, quiet)
	defer dst.Close()
	near := func(i int) uint64 { return uint64(i) }
	if err := dst.Stage(stagedBatch(0, 3, near, 1), true); err != nil {
		t.Fatal(err)
	}
	if err := dst.Stage(stagedBatch(3, 200, near, 1), false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := dst.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := dst.Unstage(); err != nil {
		t.Fatal(err)
	}
	end, _ := dst.Pointers()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := dst.WaitDurable(ctx, end); err == nil {
		_, durable := dst.Pointers()
		t.Errorf("WaitDurable(above %d) returned, durable_ptr is %d", end, durable)
	}
}

// TestTrimOnReadError ensures that an unreadable map page fails the request that needs it, not the volume.
func TestTrimOnReadError(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<30, 256)
	v := open(t, d, quiet)
	for i := range 10 {
		if err := v.WriteAt(stamped(uint64(i)), int64(i)*512*chunk, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	var armed atomic.Bool
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpRead && armed.Load() {
			return syscall.EIO
		}
		return nil
	}}
	v = open(t, f, quiet)
	defer v.Close()
	armed.Store(true)
	t.Log("write:", v.WriteAt(stamped(1), 5*512*chunk, false), "failed:", v.Status().Failed != nil)
	t.Log("trim:", v.Trim(5*512*chunk, chunk, false))
	armed.Store(false)
	if err := v.WriteAt(stamped(1), 900<<20, false); err != nil {
		t.Errorf("a write elsewhere: %v", err)
	}
}

// TestTryWriteAtInSteadyState ensures that writes go on without waiting when all buffers have been used once.
func TestTryWriteAtInSteadyState(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 64<<20, 0)
	v := open(t, d, quiet)
	defer v.Close()
	refused, n := 0, 0
	for i := range 400 {
		err := v.TryWriteAt(stamped(uint64(i)), int64(i)*chunk)
		if errors.Is(err, aodi.ErrWouldBlock) {
			if err = v.WriteAt(stamped(uint64(i)), int64(i)*chunk, false); err != nil {
				t.Fatal(err)
			}
			if i >= 100 {
				refused++
			}
		}
		n++
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if refused > 50 {
		t.Errorf("%d of 300 writes with a buffer, room and a map page at hand were refused", refused)
	}
}

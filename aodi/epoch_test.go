package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// copyLog ships the log of a source from where the mirror stands up to limit, in epochs of about maxBytes, as the sync
// loop does. It stops after n epochs.
func copyLog(t *testing.T, src, dst *aodi.Volume, limit aodi.Position, maxBytes, n int) {
	t.Helper()
	end, _ := dst.Pointers()
	if dst.Coming() != nil || end < src.HistoryFloor() {
		copyCut(t, src, dst, maxBytes)
		return
	}
	r, err := src.ReadLog(end)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b aodi.LogBatch
	for ; n > 0; n-- {
		err := r.Next(limit, maxBytes, &b)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, aodi.ErrHistoryGone) { // a checkpoint has freed it meanwhile
			if _, err := dst.Commit(); err != nil { // what came before
				t.Fatal(err)
			}
			copyCut(t, src, dst, maxBytes)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := dst.Stage(&b, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dst.Commit(); err != nil {
		t.Fatal(err)
	}
}

func newMirror(t *testing.T, d disk.Disk, segment uint32, of *aodi.Volume, opt aodi.Options) *aodi.Volume {
	t.Helper()
	if err := aodi.CreateOn(d, aodi.CreateOptions{Mirror: true, SegmentChunks: segment}); err != nil {
		t.Fatal(err)
	}
	v := open(t, d, opt)
	id := of.Info()
	if err := v.Adopt(id.Volume, id.Size, id.Lineage); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestMirrorOfLogEqualsSource ensures that shipping the log, whatever the geometry of the two containers and with
// either reopened in between, makes the mirror equal to the source, holes included.
func TestMirrorOfLogEqualsSource(t *testing.T) {
	rng := newRand(seedOf(t))
	const size = 4 << 20
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, size, 64)
	m := newModel(size)
	src := open(t, ds, aodi.Options{})
	dst := newMirror(t, dm, 32, src, aodi.Options{CheckpointBytes: 1 << 20})
	for round := range 8 {
		for range 40 {
			m.step(t, src, rng)
		}
		if err := src.Flush(); err != nil {
			t.Fatal(err)
		}
		_, durable := src.Pointers()
		copyLog(t, src, dst, durable, 1+rng.IntN(2<<20), 1<<30)
		m.check(t, dst, rng)
		if got, _ := dst.Pointers(); got != durable {
			t.Fatalf("mirror at %d, source durable at %d", got, durable)
		}
		if a, b := src.EndMark().Bytes, dst.EndMark().Bytes; a != b && dst.HistoryFloor() == 0 {
			t.Fatalf("%d bytes logged at the source, %d at the mirror", a, b)
		}
		if round%2 == 1 {
			for _, v := range []**aodi.Volume{&src, &dst} {
				if err := (*v).Close(); err != nil {
					t.Fatal(err)
				}
			}
			check(t, ds)
			check(t, dm)
			src, dst = open(t, ds, aodi.Options{}), open(t, dm, aodi.Options{CheckpointBytes: 1 << 20})
		}
	}
	_ = src.Close()
	_ = dst.Close()
}

// TestMirrorCrashKeepsWholeEpochs ensures that a mirror that crashes at any moment comes up at the end of an epoch that
// was staged whole, never before what Commit had reported, and that it goes on from there.
func TestMirrorCrashKeepsWholeEpochs(t *testing.T) {
	rng := newRand(seedOf(t))
	for range 12 {
		mirrorCrashRun(t, newRand(rng.Uint64()))
	}
}

func mirrorCrashRun(t *testing.T, rng *rand.Rand) {
	t.Helper()
	ds, dm := disk.NewMemory(1<<30), disk.NewMemory(1<<30)
	defer func() { free(t, ds); free(t, dm) }()
	h := &history{chunks: 500}
	create(t, ds, int64(h.chunks)*chunk, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	opt := aodi.Options{CheckpointBytes: int64(1+rng.IntN(30)) * 64 << 10, DurableInterval: time.Hour, CheckpointInterval: time.Hour}
	dst := newMirror(t, dm, 32, src, opt)
	stamp := uint64(0)
	committed := 0
	for range 5 {
		for range 100 {
			h.step(t, src, rng, &stamp)
		}
		if err := src.Flush(); err != nil {
			t.Fatal(err)
		}
		end, durable := src.Pointers()
		if int(end) != len(h.ops) {
			t.Fatalf("%d records at the source, %d in the history", end, len(h.ops))
		}
		copyLog(t, src, dst, durable, 1+rng.IntN(1<<19), rng.IntN(12))
		at, _ := dst.Pointers()
		committed = int(at)
		cuts := stageMore(t, src, dst, durable, rng)
		crashed := dm.Crash(rng)
		_ = dst.Close()
		free(t, dm)
		dm = crashed
		check(t, dm)
		dst = open(t, dm, opt)
		p, _ := dst.Pointers()
		if int(p) < committed {
			t.Fatalf("mirror at %d after the crash, %d was committed", p, committed)
		}
		if int(p) != committed && !cuts[p] {
			t.Fatalf("mirror at %d, which is no epoch's end: %v", p, cuts)
		}
		upTo := h.until(int(p))
		if got := upTo.prefixOf(t, dst); !sameState(upTo, got) {
			t.Fatalf("mirror at %d shows the first %d records", p, got)
		}
	}
	_ = dst.Close()
}

// stageMore stages some epochs without committing them, and perhaps part of one, and returns where whole ones end.
func stageMore(t *testing.T, src, dst *aodi.Volume, limit aodi.Position, rng *rand.Rand) map[aodi.Position]bool {
	t.Helper()
	cuts := map[aodi.Position]bool{}
	at, _ := dst.Pointers()
	r, err := src.ReadLog(at)
	if err != nil {
		t.Fatal(err)
	}
	var b aodi.LogBatch
	for range rng.IntN(4) {
		if r.Next(limit, 1+rng.IntN(1<<18), &b) != nil {
			return cuts
		}
		whole := rng.IntN(3) > 0
		if err := dst.Stage(&b, whole); err != nil {
			t.Fatal(err)
		}
		if whole {
			cuts[b.End] = true
		}
	}
	return cuts
}

// sameState tells whether the first n records give the same content as all of them.
func sameState(h *history, n int) bool {
	state := func(ops []histOp) map[int]uint64 {
		m := map[int]uint64{}
		for _, op := range ops {
			if op.stamp == grown {
				m[-1] = uint64(op.chunk)
				continue
			}
			if m[op.chunk] = op.stamp; op.stamp == 0 {
				delete(m, op.chunk)
			}
		}
		return m
	}
	a, b := state(h.ops), state(h.ops[:n])
	for c := -1; c < h.chunks; c++ {
		if a[c] != b[c] {
			return false
		}
	}
	return true
}

// TestUnstageForgetsPartOfEpoch ensures that an epoch that broke off is void, also after a crash, and that the next one
// follows the last whole one.
func TestUnstageForgetsPartOfEpoch(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<20, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	dst := newMirror(t, dm, 64, src, quiet)
	for i := range 20 {
		if err := src.WriteAt(stamped(uint64(i+1)), int64(i%7)*chunk, true); err != nil {
			t.Fatal(err)
		}
	}
	r, err := src.ReadLog(0)
	if err != nil {
		t.Fatal(err)
	}
	var b aodi.LogBatch
	next := func(limit aodi.Position, commit bool) {
		t.Helper()
		if err := r.Next(limit, 1<<20, &b); err != nil {
			t.Fatal(err)
		}
		if err := dst.Stage(&b, commit); err != nil {
			t.Fatal(err)
		}
	}
	next(8, true)
	next(12, false)
	if err := dst.Unstage(); err != nil {
		t.Fatal(err)
	}
	if p, err := dst.Commit(); p != 8 || err != nil {
		t.Fatalf("committed to %d: %v", p, err)
	}
	copyLog(t, src, dst, 20, 1, 1<<30)
	crashed := dm.Crash(newRand(1))
	defer free(t, crashed)
	_ = dst.Close()
	check(t, crashed)
	dst = open(t, crashed, quiet)
	defer dst.Close()
	if p, _ := dst.Pointers(); p != 20 {
		t.Fatalf("mirror at %d after the crash", p)
	}
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	if err := errors.Join(dst.ReadAt(got, 0), src.ReadAt(want, 0)); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("mirror and source differ: %v", err)
	}
}

// TestStageRefuses ensures that what does not follow, lies outside, or is damaged is refused and leaves the mirror as it was.
func TestStageRefuses(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<20, 64)
	src := open(t, ds, quiet)
	defer src.Close()
	if err := src.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	dst := newMirror(t, dm, 64, src, quiet)
	defer dst.Close()
	var good aodi.LogBatch
	r, _ := src.ReadLog(0)
	if err := r.Next(1, 1<<20, &good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(b *aodi.LogBatch){
		"gap":          func(b *aodi.LogBatch) { b.First++; b.End++ },
		"outside":      func(b *aodi.LogBatch) { b.Entries[0].LBA = 1 << 40 },
		"bit flipped":  func(b *aodi.LogBatch) { b.Data[77] ^= 1 },
		"data missing": func(b *aodi.LogBatch) { b.Data = nil },
		"data to much": func(b *aodi.LogBatch) { b.Data = append(b.Data, make([]byte, chunk)...) },
		"unknown kind": func(b *aodi.LogBatch) { b.Entries[0].Kind = 99 },
		"ends too low": func(b *aodi.LogBatch) { b.End = b.First },
		"no records":   func(b *aodi.LogBatch) { b.Entries, b.Data = nil, nil },
	} {
		b := good
		b.Entries = append(b.Entries[:0:0], good.Entries...)
		b.Data = append([]byte(nil), good.Data...)
		spoil(&b)
		if err := dst.Stage(&b, true); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := src.Stage(&good, true); err == nil {
		t.Error("a primary takes epochs")
	}
	if err := dst.WriteAt(stamped(2), 0, false); err == nil {
		t.Error("a mirror takes writes")
	}
	if err := dst.Stage(&good, true); err != nil {
		t.Fatal(err)
	}
	if p, err := dst.Commit(); p != 1 || err != nil {
		t.Fatalf("after the good epoch at %d: %v", p, err)
	}
}

// TestMarks ensures that a position's mark counts the data before it and does not depend on where the record is found.
func TestMarks(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	create(t, d, 1<<22, 32)
	var seconds atomic.Int64
	opt := quiet
	opt.Now = func() time.Time { return time.Unix(seconds.Load(), 0) }
	v := open(t, d, opt)
	var bytesAt []int64
	var timeAt []time.Time
	logged := int64(0)
	for range 300 {
		seconds.Add(1)
		c := rng.Int64N(1024)
		bytesAt, timeAt = append(bytesAt, logged), append(timeAt, opt.Now())
		if rng.IntN(4) == 0 && v.Status().UsedBytes > 0 {
			before, _ := v.Pointers()
			if err := v.Trim(0, 1<<22, true); err != nil {
				t.Fatal(err)
			}
			if after, _ := v.Pointers(); after != before+1 {
				t.Fatalf("a discard of what is mapped made %d records", after-before)
			}
			continue
		}
		if err := v.WriteAt(stamped(1), c*chunk, true); err != nil {
			t.Fatal(err)
		}
		logged += chunk
	}
	compare := func() {
		t.Helper()
		for p := range bytesAt {
			m, err := v.MarkAt(aodi.Position(p))
			if err != nil {
				t.Fatal(err)
			}
			if aodi.Position(p) < v.HistoryFloor() { // the oldest that is known, instead
				if m.Bytes < bytesAt[p] || m.Time.Before(timeAt[p]) {
					t.Fatalf("mark of %d, which is gone: %d bytes at %v, before %d at %v", p, m.Bytes, m.Time, bytesAt[p], timeAt[p])
				}
				continue
			}
			if m.Bytes != bytesAt[p] || !m.Time.Equal(timeAt[p]) {
				t.Fatalf("mark of %d: %d bytes at %v, want %d at %v", p, m.Bytes, m.Time, bytesAt[p], timeAt[p])
			}
		}
		if m := v.EndMark(); m.Bytes != logged || m.Position != aodi.Position(len(bytesAt)) {
			t.Fatalf("end mark %+v", m)
		}
	}
	compare()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, d, opt)
	defer v.Close()
	compare()
	if _, err := v.MarkAt(aodi.Position(len(bytesAt) + 1)); err == nil {
		t.Fatal("a mark beyond the end")
	}
}

// TestEpochIsNeverShownInPart ensures that a mirror whose disk fails any one read of a commit shows the content before the
// epoch, or after it, or none, also to who began to read before it failed; and after it was opened again one of the two.
func TestEpochIsNeverShownInPart(t *testing.T) {
	const chunks = 1200 // three leaves
	torn := 0
	for i, over := int64(0), false; !over; i++ {
		ds, dm := disk.NewMemory(1<<28), disk.NewMemory(1<<28)
		create(t, ds, chunks*chunk, 32)
		src := open(t, ds, quiet)
		write := func(stamp uint64) {
			t.Helper()
			for _, c := range []int64{0, 1, 600, 1199} {
				if err := src.WriteAt(stamped(stamp), c*chunk, false); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(src.WriteAt(bytes.Repeat(stamped(stamp), 400), 100*chunk, false), src.Flush()); err != nil {
				t.Fatal(err)
			}
		}
		write(1)
		dst := newMirror(t, dm, 32, src, quiet)
		end, _ := src.Pointers()
		copyLog(t, src, dst, end, 1<<20, 1<<30)
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
		left := i
		var failing atomic.Bool
		beside := make(chan []byte, 1) // what a reader saw who began when the read failed; nil: an error
		dst = open(t, &disk.Faulty{Disk: dm, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpRead && failing.Load() {
				if left--; left == -1 {
					failing.Store(false)
					go func() {
						p := make([]byte, chunks*chunk)
						if dst.ReadAt(p, 0) != nil {
							p = nil
						}
						beside <- p
					}()
					time.Sleep(2 * time.Millisecond) // until it waits for the map
					return syscall.EIO
				}
			}
			return nil
		}}, quiet)
		if err := errors.Join(src.Trim(0, chunks*chunk, false), src.Flush()); err != nil { // first the map, then the counts
			t.Fatal(err)
		}
		r, err := src.ReadLog(end)
		if err != nil {
			t.Fatal(err)
		}
		var b aodi.LogBatch
		end, _ = src.Pointers()
		if err := errors.Join(r.Next(end, 8<<20, &b), dst.Stage(&b, true)); err != nil {
			t.Fatal(err)
		}
		failing.Store(true)
		_, err = dst.Commit()
		failing.Store(false)
		if over = left >= 0; over != (err == nil) {
			t.Fatalf("read %d failed, commit: %v", i, err)
		}
		if !over {
			if p := <-beside; p != nil && (binary.LittleEndian.Uint64(p) != binary.LittleEndian.Uint64(p[1199*chunk:]) ||
				binary.LittleEndian.Uint64(p) != binary.LittleEndian.Uint64(p[100*chunk:])) {
				t.Fatalf("read %d failed: who read meanwhile saw a mixture of two epochs", i)
			}
		}
		whole := func(v *aodi.Volume) {
			t.Helper()
			seen := map[uint64]bool{}
			p := make([]byte, chunk)
			for _, c := range []int64{0, 1, 100, 499, 600, 1199} {
				if err := v.ReadAt(p, c*chunk); err != nil {
					torn++
					return
				}
				seen[binary.LittleEndian.Uint64(p)] = true
			}
			if len(seen) != 1 {
				t.Fatalf("read %d failed: the mirror shows a mixture of two epochs", i)
			}
		}
		whole(dst)
		_ = dst.Close()
		before := torn
		dst = open(t, dm, quiet)
		if whole(dst); torn != before {
			t.Fatalf("read %d failed: opened again, it does not read", i)
		}
		_ = dst.Close()
		_ = src.Close()
		free(t, ds)
		free(t, dm)
	}
	if torn == 0 {
		t.Error("no failed read ever came in the middle of an epoch: this test tries nothing")
	}
}

// cutFrom says where a mirror stands.
func cutFrom(dst *aodi.Volume) aodi.CutFrom {
	at, _ := dst.Pointers()
	got := dst.Coming()
	return aodi.CutFrom{Position: at, Got: got, Fresh: at == 0 && got == nil}
}

// copyCut ships one jump epoch from where the mirror stands, as the sync loop does.
func copyCut(t *testing.T, src, dst *aodi.Volume, maxBytes int) (bytes int) {
	t.Helper()
	from, _ := dst.Pointers()
	c, err := src.OpenCut(cutFrom(dst))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.End == from {
		return 0
	}
	var b aodi.LogBatch
	for {
		err := c.Next(maxBytes, &b)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		bytes += len(b.Data)
		if err := dst.Stage(&b, err != nil); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			break
		}
	}
	if _, err := dst.Commit(); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestJumpEpochEqualsSource ensures that jump epochs, between epochs in order and with either side closed in between, bring
// a mirror to the source's content, holes included, whatever was written, discarded and freed at the source meanwhile.
func TestJumpEpochEqualsSource(t *testing.T) {
	rng := newRand(seedOf(t))
	for range 4 {
		jumpRun(t, newRand(rng.Uint64()))
	}
}

func jumpRun(t *testing.T, rng *rand.Rand) {
	const size = 2 << 20
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, size, 32)
	m := newModel(size)
	opt := aodi.Options{CheckpointBytes: 1 << 20}
	src := open(t, ds, opt)
	dst := newMirror(t, dm, 32, src, opt)
	for round := range 12 {
		for range 60 {
			m.step(t, src, rng)
		}
		if err := src.Flush(); err != nil {
			t.Fatal(err)
		}
		_, durable := src.Pointers()
		if at, _ := dst.Pointers(); at >= src.HistoryFloor() && rng.IntN(2) == 0 {
			copyLog(t, src, dst, durable, 1+rng.IntN(2<<20), 1<<30)
		} else {
			copyCut(t, src, dst, 1+rng.IntN(1<<20))
		}
		m.check(t, dst, rng)
		if got, _ := dst.Pointers(); got != durable {
			t.Fatalf("mirror at %d, source durable at %d", got, durable)
		}
		if round%3 == 2 {
			for _, v := range []**aodi.Volume{&src, &dst} {
				if err := (*v).Close(); err != nil {
					t.Fatal(err)
				}
			}
			check(t, ds)
			check(t, dm)
			src, dst = open(t, ds, opt), open(t, dm, opt)
		}
	}
	_ = src.Close()
	_ = dst.Close()
}

// TestJumpEpochShipsEachChunkOnce ensures that what was written many times is shipped once, and what the mirror has not at all.
func TestJumpEpochShipsEachChunkOnce(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	const size = 8 << 20
	create(t, ds, size, 64)
	src := open(t, ds, aodi.Options{CheckpointBytes: 1 << 20})
	defer src.Close()
	dst := newMirror(t, dm, 64, src, aodi.Options{})
	defer dst.Close()
	p := make([]byte, size)
	write := func(n, off int) {
		t.Helper()
		for i := range p[:n] {
			p[i]++
		}
		if err := src.WriteAt(p[:n], int64(off), true); err != nil {
			t.Fatal(err)
		}
	}
	write(size, 0)
	if n := copyCut(t, src, dst, 1<<20); n != size {
		t.Fatalf("%d bytes shipped of %d", n, size)
	}
	for range 20 {
		write(1<<20, 3<<20)
		if err := src.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	if n := copyCut(t, src, dst, 1<<20); n != 1<<20 {
		t.Fatalf("%d bytes shipped, %d are new", n, 1<<20)
	}
	if a, b := src.Status().PhysicalBytes, int64(size+(1<<20)*8+64*format.ChunkSize*20); a > b {
		t.Fatalf("the container holds %d bytes, so dead segments were not used again (%d)", a, b)
	}
}

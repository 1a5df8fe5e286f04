package aodi_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// TestRollback ensures that a volume that was rolled back holds what the snapshot does, that what it held is kept, and that it
// goes on from there, again and again.
func TestRollback(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	const chunks = 1500
	create(t, d, chunks*chunk, 64)
	k := newKept(t, rng, chunks)
	k.v = open(t, d, quiet)
	for i := range 6 {
		for range 100 {
			if k.write(); rng.IntN(10) == 0 {
				k.trim()
			}
		}
		k.snapshot()
		to := k.order[rng.IntN(len(k.order))]
		w, err := k.v.OpenView(to)
		k.must(err)
		keep := fmt.Sprintf("before%d", i)
		k.must(k.v.Rollback(w, keep))
		w.Close()
		k.snaps[keep], k.order = maps.Clone(k.now), append(k.order, keep)
		k.now = maps.Clone(k.snaps[to])
		k.compare()
		if rng.IntN(2) == 0 {
			k.must(k.v.Close())
			check(t, d)
			k.v = open(t, d, quiet)
			k.compare()
		}
	}
	for range 50 {
		k.write()
	}
	k.compare()
	k.must(k.v.Close())
	check(t, d)
}

// TestRollbackToAMoment ensures that a moment of the history can be gone back to, and that those before and after it can
// still be read.
func TestRollbackToAMoment(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	const chunks = 800
	create(t, d, chunks*chunk, 64)
	opt := quiet
	now := time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	opt.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	opt.History = aodi.HistoryWindow{Age: 24 * time.Hour}
	pass := func() { mu.Lock(); now = now.Add(time.Second); mu.Unlock() }
	k := newKept(t, rng, chunks)
	k.v = open(t, d, opt)
	k.must(k.v.Checkpoint())
	var all []moment
	for i := range 4 {
		for range 30 {
			pass()
			k.write()
			k.must(k.v.Flush())
			all = append(all, moment{opt.Now(), maps.Clone(k.now)})
			pass()
		}
		m := all[rng.IntN(len(all))]
		w, err := k.v.OpenMoment(m.at)
		k.must(err)
		k.must(k.v.Rollback(w, fmt.Sprintf("before%d", i)))
		w.Close()
		k.now = maps.Clone(m.state)
		k.holds("the volume, rolled back", k.v, k.now)
		pass()
		for _, m := range all {
			w, err := k.v.OpenMoment(m.at)
			k.must(err)
			k.holds("at "+m.at.String(), w, m.state)
			w.Close()
		}
	}
	k.must(k.v.Close())
	check(t, d)
}

// TestCrashInRollback ensures that a power loss at any operation of a rollback leaves the volume as it was or as the snapshot
// is, nothing between, and the kept snapshot there when the volume is the other.
func TestCrashInRollback(t *testing.T) {
	rng := newRand(seedOf(t))
	ended := false
	for at := int64(0); !ended && at < 400; at += 1 + rng.Int64N(3) {
		d := disk.NewMemory(1 << 30)
		create(t, d, 1200*chunk, 32)
		k := newKept(t, rng, 1200)
		var mu sync.Mutex
		var image *disk.Memory
		left, armed, crash := at, false, newRand(rng.Uint64())
		rule := func(disk.Op, int64, int) error {
			mu.Lock()
			defer mu.Unlock()
			if armed {
				if left--; left < 0 && image == nil {
					image = d.Crash(crash)
				}
			}
			return nil
		}
		k.v = open(t, &disk.Faulty{Disk: d, Rule: rule}, quiet)
		for range 40 {
			k.write()
		}
		k.snapshot()
		for range 40 {
			k.write()
		}
		k.must(k.v.Flush())
		w, err := k.v.OpenView(k.order[0])
		k.must(err)
		mu.Lock()
		armed = true
		mu.Unlock()
		k.must(k.v.Rollback(w, "before"))
		mu.Lock()
		armed = false
		if ended = image == nil; ended {
			image = d.Crash(crash)
		}
		mu.Unlock()
		w.Close()
		_ = k.v.Close()
		d.Free()
		check(t, image)
		for range 2 { // what the first recovery does must stand
			v := open(t, image, quiet)
			b := make([]byte, k.chunks*chunk)
			k.must(v.ReadAt(b, 0))
			was, is := same(b, k.now), same(b, k.snaps[k.order[0]])
			if !was && !is || ended && !is {
				t.Fatalf("crash at operation %d: as it was %v, as the snapshot %v", at, was, is)
			}
			if is {
				kept, err := v.OpenView("before")
				k.must(err)
				k.holds("what was kept", kept, k.now)
				kept.Close()
			}
			k.must(v.WriteAt(stamped(1), 0, true))
			k.must(v.WriteAt(b[:chunk], 0, true))
			k.must(v.Close())
			check(t, image)
		}
		image.Free()
	}
	if !ended {
		t.Fatal("the crashes did not come to the end of it")
	}
}

func same(b []byte, want map[int64]uint64) bool {
	for c := range int64(len(b) / chunk) {
		if [8]byte(b[c*chunk:]) != [8]byte(stamped(want[c])) {
			return false
		}
	}
	return true
}

// TestRollbackWithoutSpace ensures that a rollback which the disk leaves no space for, at whatever point and so that not even what it has brought
// can be given up, leaves the volume as it was: no write is taken until it is given up, and then all counts are right, also of
// chunks that are written after it, and a further rollback is that.
func TestRollbackWithoutSpace(t *testing.T) {
	rng := newRand(seedOf(t))
	refused := 0
	for range 6 {
		refused += rollbackWithoutSpace(t, rng.Uint64())
	}
	t.Logf("%d times what had come could not be given up", refused)
	if refused == 0 {
		t.Error("what had come could always be given up")
	}
}

// rollbackWithoutSpace tries each point, and tells how often a write was refused behind it.
func rollbackWithoutSpace(t *testing.T, seed uint64) (refused int) {
	for at, ended := 0, false; !ended; at++ {
		rng := newRand(seed)
		d := disk.NewMemory(1 << 30)
		create(t, d, 1200*chunk, 32)
		k := newKept(t, rng, 1200)
		var mu sync.Mutex
		left, armed := at, false
		rule := func(op disk.Op, _ int64, _ int) error {
			mu.Lock()
			defer mu.Unlock()
			if armed && (op == disk.OpReserve || op == disk.OpGrow) {
				if left--; left < 0 {
					return syscall.ENOSPC
				}
			}
			return nil
		}
		arm := func(on bool) {
			mu.Lock()
			armed = on
			mu.Unlock()
		}
		k.v = open(t, &disk.Faulty{Disk: d, Rule: rule}, quiet)
		for range 40 {
			k.write()
		}
		k.snapshot()
		for range 150 {
			k.write()
		}
		k.must(k.v.Flush())
		w, err := k.v.OpenView(k.order[0])
		k.must(err)
		arm(true)
		err = k.v.Rollback(w, "before")
		w.Close()
		mu.Lock()
		ended = left >= 0
		mu.Unlock()
		if err == nil {
			k.now = maps.Clone(k.snaps[k.order[0]])
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		} else if werr := k.v.WriteAt(stamped(1), 0, false); werr != nil {
			refused++
			if !errors.Is(werr, syscall.ENOSPC) {
				t.Fatal(werr)
			}
		} else {
			k.now[0] = 1
			if end, durable := k.v.Pointers(); durable >= end {
				t.Fatalf("durable_ptr is %d of %d right after a write that nobody has flushed", durable, end)
			}
		}
		arm(false)
		if w, err := k.v.OpenView("before"); err == nil { // what is tried again gives up what was left, before anything else
			w.Close()
			k.must(k.v.DeleteSnapshot("before"))
		}
		w, err = k.v.OpenView(k.order[0])
		k.must(err)
		for err := error(syscall.ENOSPC); err != nil; time.Sleep(time.Millisecond) { // until the reaper has done it
			if err = k.v.WriteAt(stamped(1), 0, false); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		w.Close()
		k.now[0] = 1
		for range 40 {
			k.write()
		}
		k.snapshot()
		for range 10 {
			k.write()
		}
		w, err = k.v.OpenView(k.order[1])
		k.must(err)
		k.must(k.v.Rollback(w, "last"))
		w.Close()
		k.now = maps.Clone(k.snaps[k.order[1]])
		k.holds("the volume", k.v, k.now)
		k.must(k.v.Close())
		check(t, d)
		d.Free()
	}
	return refused
}

// TestDurablePtrAfterAFailedRollback ensures that what a rollback that failed has put into the log does not make the records durable
// that take its place: a mirror would get them, and a crash could take them here.
func TestDurablePtrAfterAFailedRollback(t *testing.T) {
	failed := 0
	for at, ended := 0, false; !ended; at++ {
		d := disk.NewMemory(1 << 30)
		create(t, d, 1200*chunk, 32)
		k := newKept(t, newRand(1), 1200)
		k.v = open(t, d, quiet)
		for i := range int64(100) {
			k.must(k.v.WriteAt(stamped(uint64(i)), i*11*chunk, false))
		}
		_, err := k.v.CreateSnapshot("then")
		k.must(err)
		for i := range int64(100) {
			k.must(k.v.WriteAt(stamped(uint64(1000+i)), i*11*chunk, false))
		}
		k.must(k.v.Close())
		var left atomic.Int64
		left.Store(1 << 40)
		k.v = open(t, &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpRead && left.Add(-1) == 0 {
				return syscall.EIO
			}
			return nil
		}}, quiet)
		then, err := k.v.OpenView("then")
		k.must(err)
		left.Store(int64(at + 1))
		err = k.v.Rollback(then, "before")
		then.Close()
		ended = left.Load() > 0
		left.Store(1 << 40)
		if err != nil && k.v.Status().Failed == nil {
			failed++
			k.must(k.v.WriteAt(stamped(1), 0, false))
			if end, durable := k.v.Pointers(); durable >= end {
				t.Errorf("read %d: durable_ptr is %d of %d right after a write that nobody has flushed", at, durable, end)
			}
		}
		_ = k.v.Close()
		check(t, d)
		d.Free()
	}
	if failed == 0 {
		t.Error("no rollback has failed")
	}
}

package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// kept is a volume and what it and its snapshots must hold.
type kept struct {
	t      *testing.T
	rng    *rand.Rand
	v      *aodi.Volume
	chunks int64
	stamp  uint64
	now    map[int64]uint64
	snaps  map[string]map[int64]uint64
	order  []string
}

func newKept(t *testing.T, rng *rand.Rand, chunks int64) *kept {
	return &kept{t: t, rng: rng, chunks: chunks, now: map[int64]uint64{}, snaps: map[string]map[int64]uint64{}}
}

func (k *kept) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// write changes some chunks, near each other or anywhere.
func (k *kept) write() {
	at, n := k.rng.Int64N(k.chunks), 1+k.rng.Int64N(8)
	for c := at; c < min(k.chunks, at+n); c++ {
		k.stamp++
		k.must(k.v.WriteAt(stamped(k.stamp), c*chunk, false))
		k.now[c] = k.stamp
	}
}

func (k *kept) trim() {
	at, n := k.rng.Int64N(k.chunks), k.rng.Int64N(1+k.chunks/4)
	n = min(n, k.chunks-at)
	k.must(k.v.Trim(at*chunk, n*chunk, false))
	for c := at; c < at+n; c++ {
		delete(k.now, c)
	}
}

func (k *kept) snapshot() {
	name := fmt.Sprintf("s%d", k.stamp)
	if k.snaps[name] != nil {
		return
	}
	if _, err := k.v.CreateSnapshot(name); err != nil {
		k.t.Fatal(err)
	}
	k.snaps[name] = maps.Clone(k.now)
	k.order = append(k.order, name)
}

func (k *kept) delete() {
	if len(k.order) == 0 {
		return
	}
	i := k.rng.IntN(len(k.order))
	k.must(k.v.DeleteSnapshot(k.order[i]))
	delete(k.snaps, k.order[i])
	k.order = slices.Delete(k.order, i, i+1)
}

// reader is what a volume and a view have in common.
type reader interface {
	ReadAt(p []byte, off int64) error
}

// compare holds the volume and each of its snapshots against the model.
func (k *kept) compare() {
	k.t.Helper()
	k.holds("the volume", k.v, k.now)
	var names []string
	for _, s := range k.v.Snapshots() {
		names = append(names, s.Name)
		w, err := k.v.OpenView(s.Name)
		k.must(err)
		if want := int64(len(k.snaps[s.Name])) * chunk; s.UsedBytes != want {
			k.t.Fatalf("%s uses %d bytes, not %d", s.Name, s.UsedBytes, want)
		}
		k.holds(s.Name, w, k.snaps[s.Name])
		w.Close()
	}
	if !slices.Equal(names, k.order) {
		k.t.Fatalf("snapshots %v, not %v", names, k.order)
	}
}

func (k *kept) holds(what string, r reader, want map[int64]uint64) {
	k.t.Helper()
	b := make([]byte, k.chunks*chunk)
	k.must(r.ReadAt(b, 0))
	for c := range k.chunks {
		got := b[c*chunk : (c+1)*chunk]
		if s := binary.LittleEndian.Uint64(got); s != want[c] || s != 0 && !bytes.Equal(got, stamped(s)) {
			k.t.Fatalf("%s: chunk %d holds write %d, not %d", what, c, s, want[c])
		}
	}
}

// TestSnapshotsEqualModel ensures that each snapshot holds what the volume held when it was made, whatever is written, trimmed
// and deleted afterwards, over crashes, and that the checker finds every count as it says.
func TestSnapshotsEqualModel(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	runs := 8
	if testing.Short() || raceEnabled {
		runs = 3
	}
	for range runs {
		snapshotRun(t, newRand(rng.Uint64()))
	}
}

func snapshotRun(t *testing.T, rng *rand.Rand) {
	d := newDisk(t, 1<<30)
	chunks := int64(300 + rng.IntN(2000)) // up to five leaves
	create(t, d, chunks*chunk, []uint32{32, 64, 256}[rng.IntN(3)])
	k := newKept(t, rng, chunks)
	opt := quiet
	if rng.IntN(2) == 0 {
		opt.CheckpointBytes = 256 << 10
	}
	for range 5 {
		k.v = open(t, d, opt)
		for range 200 {
			switch rng.IntN(20) {
			case 0:
				k.trim()
			case 1, 2:
				k.snapshot()
			case 3:
				k.delete()
			case 4:
				k.must(k.v.Checkpoint())
			default:
				k.write()
			}
		}
		k.compare()
		if rng.IntN(2) == 0 { // the crash often finds a deletion under way
			k.must(k.v.Flush())
			image := d.Crash(rng)
			t.Cleanup(image.Free)
			_ = k.v.Close()
			d = image
		} else {
			k.must(k.v.Close())
		}
		check(t, d)
	}
	k.v = open(t, d, opt)
	k.compare()
	for len(k.order) > 0 {
		k.delete()
	}
	k.compare()
	k.must(k.v.Close())
	check(t, d)
}

// waitReaped waits until no deleted snapshot takes space any more.
func waitReaped(t *testing.T, v *aodi.Volume) {
	t.Helper()
	for range 10000 {
		if v.Status().Deleting == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("a deleted snapshot stays")
}

// TestDeletedSnapshotsGiveSpaceBack ensures that what only a deleted snapshot has led to becomes free, and nothing else.
func TestDeletedSnapshotsGiveSpaceBack(t *testing.T) {
	d := newDisk(t, 1<<30)
	const chunks = 4000
	create(t, d, chunks*chunk, 64)
	k := newKept(t, newRand(seedOf(t)), chunks)
	k.v = open(t, d, quiet)
	overwrite := func() {
		for c := int64(0); c < chunks; c++ {
			k.stamp++
			k.must(k.v.WriteAt(stamped(k.stamp), c*chunk, false))
			k.now[c] = k.stamp
		}
	}
	overwrite()
	for range 5 {
		k.snapshot()
		overwrite()
	}
	live := func() uint64 {
		t.Helper()
		k.must(k.v.Close())
		r, err := recovery.Check(d, recovery.CheckOptions{})
		k.must(err)
		if !r.OK() {
			t.Fatal(r.Violations)
		}
		k.v = open(t, d, quiet)
		return r.Counts.Live
	}
	full := live()
	for len(k.order) > 0 {
		k.must(k.v.DeleteSnapshot(k.order[0]))
		delete(k.snaps, k.order[0])
		k.order = k.order[1:]
		waitReaped(t, k.v)
	}
	k.compare()
	if left := live(); left > full/6+100 {
		t.Fatalf("of %d live chunks with 5 snapshots, %d are left without them", full, left)
	}
	k.must(k.v.Close()) // its disk's memory goes to the next test
}

// TestCrashAtEachStepOfASnapshot ensures that a power loss at any operation of making and deleting snapshots leaves each as a
// whole or not at all, the ones that were acknowledged there, and every count right.
func TestCrashAtEachStepOfASnapshot(t *testing.T) {
	rng := newRand(seedOf(t))
	ended := false
	for at := int64(0); !ended && at < 400; at += 1 + rng.Int64N(3) {
		d := disk.NewMemory(1 << 30)
		create(t, d, 1200*chunk, 32)
		k := newKept(t, rng, 1200)
		var mu sync.Mutex
		var image *disk.Memory
		var left, acked = at, []string{}
		armed, crash := false, newRand(rng.Uint64())
		rule := func(disk.Op, int64, int) error {
			mu.Lock()
			defer mu.Unlock()
			if left--; armed && left < 0 && image == nil {
				image = d.Crash(crash)
				acked = slices.Clone(k.order)
			}
			return nil
		}
		k.v = open(t, &disk.Faulty{Disk: d, Rule: rule}, quiet)
		for range 30 {
			k.write()
		}
		k.must(k.v.Flush())
		mu.Lock()
		armed, left = true, at
		mu.Unlock()
		deleted := ""
		all := map[string]map[int64]uint64{}
		for i := range 3 {
			k.must(k.v.Flush())
			name := fmt.Sprintf("s%d", i)
			all[name] = maps.Clone(k.now)
			if _, err := k.v.CreateSnapshot(name); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			k.order = append(k.order, name)
			mu.Unlock()
			for range 10 {
				k.write()
			}
		}
		mu.Lock()
		deleted, k.order = k.order[1], []string{k.order[0], k.order[2]}
		mu.Unlock()
		k.must(k.v.DeleteSnapshot(deleted))
		waitReaped(t, k.v)
		k.must(k.v.Close())
		mu.Lock()
		if ended = image == nil; ended {
			image = d.Crash(rng)
			acked = k.order
		}
		mu.Unlock()
		free(k.t, d)
		check(t, image)
		v := open(t, image, quiet)
		k.v, k.snaps = v, all
		k.order = k.order[:0]
		for _, s := range v.Snapshots() {
			k.order = append(k.order, s.Name)
		}
		for _, name := range acked {
			if !slices.Contains(k.order, name) {
				t.Fatalf("crash at operation %d: snapshot %s was acknowledged, there are %v", at, name, k.order)
			}
		}
		for _, s := range v.Snapshots() {
			w, err := v.OpenView(s.Name)
			k.must(err)
			k.holds(s.Name, w, all[s.Name])
			w.Close()
		}
		k.must(v.Close())
		check(t, image)
		free(k.t, image)
	}
	if !ended {
		t.Fatal("the crashes did not come to the end of it")
	}
}

// TestSnapshotRefusals ensures that what cannot be done is said, and changes nothing.
func TestSnapshotRefusals(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 100*chunk, 64)
	v := open(t, d, quiet)
	defer v.Close()
	for _, name := range []string{"", "a b", "a@b", "-x", "a/b", string(bytes.Repeat([]byte{'x'}, 129)), "\xff"} {
		if _, err := v.CreateSnapshot(name); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	if _, err := v.CreateSnapshot("one"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.CreateSnapshot("one"); !errors.Is(err, aodi.ErrSnapshotExists) {
		t.Errorf("twice the same name: %v", err)
	}
	w, err := v.OpenView("one")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.DeleteSnapshot("one"); !errors.Is(err, aodi.ErrSnapshotInUse) {
		t.Errorf("deleted in use: %v", err)
	}
	if err := w.WriteAt(make([]byte, chunk), 0, false); err == nil {
		t.Error("a snapshot took a write")
	}
	w.Close()
	if err := v.DeleteSnapshot("one"); err != nil {
		t.Error(err)
	}
	if _, err := v.OpenView("one"); !errors.Is(err, aodi.ErrNoSnapshot) {
		t.Errorf("opened after it was deleted: %v", err)
	}
}

// TestDeletionGoesOnAfterACrash ensures that a deletion which a crash finds half done is ended by the next life, and counts
// nothing twice.
func TestDeletionGoesOnAfterACrash(t *testing.T) {
	rng := newRand(seedOf(t))
	const leaves = 400
	d := newDisk(t, 1<<30)
	create(t, d, leaves*512*chunk, 64)
	k := newKept(t, rng, leaves*512)
	k.v = open(t, d, quiet)
	touch := func() {
		for leaf := range int64(leaves) {
			k.stamp++
			k.must(k.v.WriteAt(stamped(k.stamp), leaf*512*chunk, false))
			k.now[leaf*512] = k.stamp
		}
	}
	for range 3 {
		touch()
		k.snapshot()
	}
	touch()
	k.must(k.v.Close()) // so that the map's pages are read anew, slowly
	k.v = open(t, &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
		if op == disk.OpRead {
			time.Sleep(200 * time.Microsecond)
		}
		return nil
	}}, quiet)
	half := 0
	var images []*disk.Memory
	k.must(k.v.DeleteSnapshot(k.order[1]))
	for k.v.Status().Deleting > 0 { // the reaper and the checkpoints take turns
		k.must(k.v.Checkpoint())
		k.must(k.v.Checkpoint())
		image := d.Crash(rng)
		t.Cleanup(image.Free)
		images = append(images, image)
	}
	for _, image := range images {
		for _, s := range check(t, image).Catalog.Snapshots {
			if s.Gone == 0 || s.Gone >= leaves {
				continue
			}
			half++
			v := open(t, image, quiet)
			waitReaped(t, v)
			k.must(v.Close())
			check(t, image)
		}
	}
	k.must(k.v.Close())
	check(t, d)
	if half == 0 {
		t.Error("no crash fell into the deletion")
	}
}

// TestDeletionBelowADeletion ensures that of two snapshots next to each other, the older one deleted while the newer one goes, all is
// counted that both had, wherever the deletion of the newer one stood.
func TestDeletionBelowADeletion(t *testing.T) {
	rng := newRand(seedOf(t))
	const leaves = 300
	for range 4 {
		d := newDisk(t, 1<<30)
		create(t, d, leaves*512*chunk, 64)
		k := newKept(t, rng, leaves*512)
		k.v = open(t, d, quiet)
		touch := func(step int64) {
			for leaf := int64(0); leaf < leaves; leaf += step {
				k.stamp++
				k.must(k.v.WriteAt(stamped(k.stamp), leaf*512*chunk, false))
				k.now[leaf*512] = k.stamp
			}
		}
		touch(1)
		k.snapshot()
		touch(3)
		k.snapshot()
		touch(1)
		k.must(k.v.Close()) // so that the map's pages are read anew, slowly
		k.v = open(t, &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
			if op == disk.OpRead {
				time.Sleep(200 * time.Microsecond)
			}
			return nil
		}}, quiet)
		k.must(k.v.DeleteSnapshot(k.order[1]))
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		k.must(k.v.DeleteSnapshot(k.order[0]))
		waitReaped(t, k.v)
		k.order, k.snaps = nil, nil
		k.compare()
		k.must(k.v.Close())
		check(t, d)
	}
}

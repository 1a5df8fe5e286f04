package recovery_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

const chunk = format.ChunkSize

// seedOf is the run's seed: CAWRM_SEED replays one.
func seedOf(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("CAWRM_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("CAWRM_SEED=%d replays this", seed)
		}
	})
	return seed
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func newDisk(t testing.TB) *disk.Memory {
	d := disk.NewMemory(256 << 20)
	t.Cleanup(d.Free)
	return d
}

// quiet is a volume that writes no checkpoint unasked.
var quiet = aodi.Options{CheckpointInterval: time.Hour, CheckpointBytes: 1 << 40, DurableInterval: time.Hour}

func open(t testing.TB, d disk.Disk, opt aodi.Options) *aodi.Volume {
	t.Helper()
	v, err := aodi.OpenOn(d, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mustHold fails the test when a rule is broken.
func mustHold(t testing.TB, d disk.Disk, when string) *recovery.Report {
	t.Helper()
	rep, err := recovery.Check(d, recovery.CheckOptions{Memory: 1 << 16})
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if !rep.OK() {
		var b strings.Builder
		_ = rep.Print(&b)
		t.Fatalf("%s:\n%s", when, b.String())
	}
	return rep
}

// churn does n random writes, trims, zeroings, flushes and checkpoints.
func churn(t testing.TB, v *aodi.Volume, rng *rand.Rand, n int) {
	t.Helper()
	chunks := int(v.Size() / chunk)
	for range n {
		var err error
		at := rng.IntN(chunks)
		k := min(1+rng.IntN(24), chunks-at)
		switch op := rng.IntN(100); {
		case op < 70:
			p := make([]byte, k*chunk)
			for i := range k {
				copy(p[i*chunk:], fmt.Sprint(rng.Uint64()))
			}
			err = v.WriteAt(p, int64(at)*chunk, op == 0)
		case op < 75:
			err = v.WriteAt([]byte("part of a chunk"), int64(at)*chunk+int64(rng.IntN(4000)), false)
		case op < 83:
			err = v.Trim(int64(at)*chunk, int64(k)*chunk, false)
		case op < 88:
			err = v.WriteZeroes(int64(at)*chunk, int64(k)*chunk, op%2 == 0, false)
		case op < 97:
			err = v.Flush()
		default:
			err = v.Checkpoint()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckAgreesWithVolume ensures that the volume keeps every rule: fresh, after each power loss at a random
// moment, and after each close.
func TestCheckAgreesWithVolume(t *testing.T) {
	rng := newRand(seedOf(t))
	runs := 12
	if testing.Short() {
		runs = 4
	}
	for run := range runs {
		d := newDisk(t)
		segment := []uint32{32, 64, 512}[run%3]
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: int64(300+rng.IntN(3000)) * chunk, SegmentChunks: segment}); err != nil {
			t.Fatal(err)
		}
		mustHold(t, d, "a new container")
		for range 4 {
			opt := aodi.Options{CheckpointBytes: int64(1+rng.IntN(40)) * 64 << 10, DurableInterval: time.Millisecond}
			v := open(t, d, opt)
			churn(t, v, rng, 20+rng.IntN(200))
			crashed := d.Crash(rng)
			t.Cleanup(crashed.Free)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			rep := mustHold(t, d, "closed")
			if rep.Rolled.Batches != 0 {
				t.Fatalf("%d batches after a clean close", rep.Rolled.Batches)
			}
			mustHold(t, crashed, "crashed")
			v = open(t, crashed, quiet)
			again := crashed.Crash(rng)
			t.Cleanup(again.Free)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			mustHold(t, crashed, "recovered and closed")
			mustHold(t, again, "crashed right after recovery")
			d = again
		}
	}
}

// TestCheckAgreesWithMirror ensures the same of a mirror: epochs over several batches, some given up in the middle.
func TestCheckAgreesWithMirror(t *testing.T) {
	rng := newRand(seedOf(t))
	for run := range 6 {
		d := newDisk(t)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Mirror: true, SegmentChunks: []uint32{32, 64}[run%2]}); err != nil {
			t.Fatal(err)
		}
		mustHold(t, d, "a new mirror")
		v := open(t, d, quiet)
		if err := v.Adopt(format.UUID{1}, 1000*chunk, []format.Lineage{{ID: format.UUID{1}}}); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			stage(t, v, rng)
			crashed := d.Crash(rng)
			t.Cleanup(crashed.Free)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			mustHold(t, d, "closed")
			mustHold(t, crashed, "crashed")
			v = open(t, crashed, quiet)
			end, _ := v.Pointers()
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			rep := mustHold(t, crashed, "recovered and closed")
			if rep.RolledEnd != end {
				t.Fatalf("end_ptr was %d, the container says %d", end, rep.RolledEnd)
			}
			d = crashed
			v = open(t, d, quiet)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// stage stages epochs of some batches each; some are given up, some end, some are committed, with checkpoints between.
func stage(t *testing.T, v *aodi.Volume, rng *rand.Rand) {
	t.Helper()
	end, _ := v.Pointers()
	whole := end // the end of the last whole epoch
	for range 12 {
		for n := 1 + rng.IntN(4); n > 0; n-- {
			b := aodi.LogBatch{First: end, End: end}
			for range 1 + rng.IntN(30) {
				p := make([]byte, chunk)
				copy(p, fmt.Sprint(rng.Uint64()))
				e := format.Entry{Birth: b.End, LBA: uint64(rng.IntN(990)), Kind: format.KindData, Count: 1, CRC: format.Sum(p)}
				if rng.IntN(8) == 0 {
					e.Kind, e.Count, e.CRC = format.KindDiscard, uint32(1+rng.IntN(9)), 0
				} else {
					b.Data = append(b.Data, p...)
				}
				b.Entries = append(b.Entries, e)
				b.End++
			}
			if err := v.Stage(&b, n == 1); err != nil {
				t.Fatal(err)
			}
			if end = b.End; n == 1 {
				whole = end
			} else if rng.IntN(6) == 0 {
				if err := v.Unstage(); err != nil {
					t.Fatal(err)
				}
				end = whole
			}
		}
		var err error
		switch rng.IntN(5) {
		case 0, 1, 2:
			_, err = v.Commit()
		case 3:
			err = v.Checkpoint()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckAgreesWithCrowd ensures the same after many goroutines wrote, trimmed, flushed and made checkpoints at once.
func TestCheckAgreesWithCrowd(t *testing.T) {
	seed := seedOf(t)
	for run := range 6 {
		d := newDisk(t)
		if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1500 * chunk, SegmentChunks: 32}); err != nil {
			t.Fatal(err)
		}
		v := open(t, d, aodi.Options{CheckpointBytes: 256 << 10, MapMemory: 1 << 20})
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait) // before the disk's memory goes
		for w := range 6 {
			wg.Go(func() { churn(t, v, newRand(seed+uint64(run*10+w)), 60) })
		}
		rng := newRand(seed)
		for range 3 {
			time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			crashed := d.Crash(rng)
			t.Cleanup(crashed.Free)
			mustHold(t, crashed, "crashed")
			if err := open(t, crashed, quiet).Close(); err != nil {
				t.Fatal(err)
			}
			mustHold(t, crashed, "recovered and closed")
		}
		wg.Wait()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		mustHold(t, d, "closed")
	}
}

package recovery_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
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
	d := disk.NewMemory(1 << 30)
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
		k := min(1+rng.IntN(64), chunks-at)
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
	runs := 24
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

package aodi_test

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

const chunk = 4096

// seedOf returns the seed of a randomised test, from CAWRM_SEED or from the clock, and prints it when the test fails.
func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CAWRM_SEED"); s != "" {
		seed = 0
		for _, c := range s {
			seed = seed*10 + uint64(c-'0')
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to replay: CAWRM_SEED=%d", seed)
		}
	})
	return seed
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func newDisk(t *testing.T, limit int64) *disk.Memory {
	d := disk.NewMemory(limit)
	t.Cleanup(func() { free(t, d) })
	return d
}

// free gives a disk's memory back. A test that failed leaves volumes open, and what still runs in them would fault, and hide
// what had failed, or write into the disk that gets the memory next.
func free(t *testing.T, d *disk.Memory) {
	if !t.Failed() {
		d.Free()
	}
}

func create(t *testing.T, d disk.Disk, size int64, segmentChunks uint32) {
	t.Helper()
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: size, SegmentChunks: segmentChunks}); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, d disk.Disk, opt aodi.Options) *aodi.Volume {
	t.Helper()
	if os.Getenv("VERBOSE") != "" {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	v, err := aodi.OpenOn(d, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// quiet keeps checkpoints and timed syncs from happening by themselves.
var quiet = aodi.Options{DurableInterval: time.Hour, CheckpointInterval: time.Hour, CheckpointBytes: 1 << 40}

func fill(b []byte, rng *rand.Rand) []byte {
	if len(b) == 0 {
		return b
	}
	for i := 0; i < len(b); i += 512 { // enough to tell any two sectors apart
		for k, x := i, rng.Uint64(); k < min(i+8, len(b)); k, x = k+1, x>>8 {
			b[k] = byte(x)
		}
	}
	return b
}

// check runs the offline checker, which shares no code with the volume's maps, over a disk that no volume has open.
func check(t *testing.T, d disk.Disk) *recovery.Report {
	t.Helper()
	r, err := recovery.Check(d, recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Errorf("check: %v", v)
	}
	if !r.OK() {
		t.FailNow()
	}
	return r
}

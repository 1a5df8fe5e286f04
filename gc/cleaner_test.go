package gc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
	recovery "cawrm/recover"
)

const chunk = 4096

func seedOf(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("CAWRM_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to replay: CAWRM_SEED=%d", seed)
		}
	})
	return seed
}

func stamped(stamp uint64) []byte {
	b := make([]byte, chunk)
	binary.LittleEndian.PutUint64(b, stamp)
	binary.LittleEndian.PutUint64(b[chunk-8:], stamp)
	return b
}

// container makes a volume of that many chunks in a container of that capacity, and a cleaner.
func container(t *testing.T, chunks, capacity int64, segment uint32, policy gc.Policy) (*disk.Memory, *aodi.Volume, *gc.Cleaner) {
	t.Helper()
	d := disk.NewMemory(max(capacity, 256<<20))
	t.Cleanup(d.Free)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: chunks * chunk, Capacity: capacity, SegmentChunks: segment}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.OpenOn(d, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d, v, gc.Start(v, gc.Options{Policy: policy})
}

func start(v *aodi.Volume) *gc.Cleaner { return gc.Start(v, gc.Options{}) }

func finish(t *testing.T, d disk.Disk, v *aodi.Volume, c *gc.Cleaner) {
	t.Helper()
	c.Close()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	r, err := recovery.Check(d, recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Errorf("check: %v", v)
	}
}

// TestOverwritesForEver ensures that a volume whose data take three quarters of a small capacity takes random overwrites of many times the
// capacity, none of which fails, within the capacity, and reads what was written.
func TestOverwritesForEver(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	const capacity = 32 << 20
	chunks := int64(capacity / 4 * 3 / chunk)
	d, v, c := container(t, chunks, capacity, 64, nil)
	now := make([]uint64, chunks)
	for stamp := uint64(1); stamp < 5*uint64(chunks); stamp++ {
		at := rng.Int64N(chunks)
		if stamp <= uint64(chunks) {
			at = int64(stamp) - 1
		}
		if err := v.WriteAt(stamped(stamp), at*chunk, false); err != nil {
			t.Fatalf("write %d: %v", stamp, err)
		}
		now[at] = stamp
	}
	s := v.Space()
	t.Logf("%d segments, %d free, write amplification %.2f, %.2f in theory", s.Limit, s.Free, 1+float64(s.Moved)/float64(s.Logged), gc.Amplification(.8))
	b := make([]byte, chunk)
	for at, stamp := range now {
		if err := v.ReadAt(b, int64(at)*chunk); err != nil || !bytes.Equal(b, stamped(stamp)) {
			t.Fatalf("chunk %d: %v", at, err)
		}
	}
	finish(t, d, v, c)
	if n := d.Size(); n > capacity {
		t.Errorf("the container has %d bytes, of %d", n, capacity)
	}
}

// TestFull ensures that a volume that is full of live data refuses writes with ENOSPC, and goes on with reads and discards,
// after which writes succeed again.
func TestFull(t *testing.T) {
	const capacity = 16 << 20
	chunks := int64(capacity * 2 / chunk)
	d, v, c := container(t, chunks, capacity, 32, nil)
	for range 3 {
		n := int64(0)
		for ; n < chunks; n++ {
			if err := v.WriteAt(stamped(uint64(n+1)), n*chunk, false); err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				break
			}
		}
		if share := float64(n*chunk) / capacity; share < .7 || n == chunks {
			t.Errorf("%d chunks were taken, %.2f of the capacity", n, share)
		}
		b := make([]byte, chunk)
		for at := range n {
			if err := v.ReadAt(b, at*chunk); err != nil || !bytes.Equal(b, stamped(uint64(at+1))) {
				t.Fatalf("full, chunk %d: %v", at, err)
			}
		}
		for at := int64(0); at < n; at += 2 { // one by one, each for good
			if err := v.Trim(at*chunk, chunk, at%64 == 0); err != nil {
				t.Fatalf("discard of chunk %d on a full volume: %v", at, err)
			}
		}
		for at := range n / 4 {
			if err := v.WriteAt(stamped(7), at*2*chunk, false); err != nil {
				t.Fatalf("write %d after the discards: %v", at, err)
			}
		}
		if err := v.Trim(0, chunks*chunk, false); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, d, v, c)
}

// TestByHand ensures that Run leaves little garbage and changes nothing.
func TestByHand(t *testing.T) {
	rng := rand.New(rand.NewPCG(seedOf(t), 0))
	d, v, c := container(t, 4000, 0, 64, nil)
	now := make([]uint64, 4000)
	for stamp := uint64(1); stamp < 20000; stamp++ {
		at := rng.Int64N(4000)
		if err := v.WriteAt(stamped(stamp), at*chunk, false); err != nil {
			t.Fatal(err)
		}
		now[at] = stamp
	}
	before := v.Space().GarbageBytes
	p, err := c.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	after := v.Space()
	t.Logf("%d bytes of garbage before, %+v", before, p)
	if after.GarbageBytes > before/4 || p.Segments == 0 {
		t.Errorf("%d bytes of garbage, %d before", after.GarbageBytes, before)
	}
	b := make([]byte, chunk)
	for at, stamp := range now {
		if err := v.ReadAt(b, int64(at)*chunk); err != nil || binary.LittleEndian.Uint64(b) != stamp {
			t.Fatalf("chunk %d: %v", at, err)
		}
	}
	finish(t, d, v, c)
}

// TestTheory ensures that the formula gives what is published: half full segments, about, where four fifths are used.
func TestTheory(t *testing.T) {
	for used, want := range map[float64]float64{.5: .203, .8: .628, .9: .807} {
		if u := gc.VictimUtilization(used); u < want-.01 || u > want+.01 {
			t.Errorf("used %.1f: %.3f, want %.3f", used, u, want)
		}
	}
}

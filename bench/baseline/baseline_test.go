package baseline

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/wan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSize = 4 << 20

func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano()) % 1e9
	if env := os.Getenv("CAWRM_SEED"); env != "" {
		seed, _ = strconv.ParseUint(env, 10, 64)
	}
	t.Logf("CAWRM_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func inPlace(t *testing.T) Volume {
	t.Helper()
	v, err := NewInPlace(disk.NewMemory(testSize), testSize)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func logged(t *testing.T) Volume {
	t.Helper()
	path := filepath.Join(t.TempDir(), "v")
	if err := aodi.Create(path, aodi.CreateOptions{Size: testSize}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return Log{v}
}

// slow makes each operation take some time, within which others come in.
type slow struct {
	Volume
	mu  sync.Mutex
	rng *rand.Rand
}

func (s *slow) pause() {
	s.mu.Lock()
	n := s.rng.IntN(20)
	s.mu.Unlock()
	if n == 0 {
		time.Sleep(time.Millisecond)
		return
	}
	for range n {
		runtime.Gosched()
	}
}

func (s *slow) WriteAt(p []byte, off int64) error {
	s.pause()
	defer s.pause()
	return s.Volume.WriteAt(p, off)
}

func (s *slow) ReadAt(p []byte, off int64) error {
	defer s.pause()
	return s.Volume.ReadAt(p, off)
}

// pair is two sites with a line between them.
type pair struct {
	mirror *Mirror
	backup *Backup
	link   *wan.Link
}

func join(t *testing.T, local, remote Volume, journal disk.Disk, p wan.Profile, cfg Config) *pair {
	t.Helper()
	ln := wan.NewMemory()
	l, err := wan.New(context.Background(), ln.Dial, p)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBackup(remote, journal)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { b.Serve(ln); close(served) }()
	cfg.Dial, cfg.Retry = l.Dial, 5*time.Millisecond
	x := &pair{Start(local, cfg), b, l}
	t.Cleanup(func() { x.mirror.Close(); l.Close(); ln.Close(); <-served; b.Close() })
	return x
}

func (x *pair) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := x.mirror.Wait(ctx); err != nil {
		t.Fatalf("%v; the backup says %v; %+v", err, x.backup.Err(), x.mirror.Stats())
	}
}

// same compares all of two volumes.
func same(t *testing.T, a, b Volume) {
	t.Helper()
	x, y := make([]byte, Chunk), make([]byte, Chunk)
	for off := int64(0); off < testSize; off += Chunk {
		if err := a.ReadAt(x, off); err != nil {
			t.Fatal(err)
		}
		if err := b.ReadAt(y, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Fatalf("chunk %d differs: %x and %x", off/Chunk, x[:16], y[:16])
		}
	}
}

// stamp makes n chunks that no other write has.
func stamp(nr uint64, n int) []byte {
	p := make([]byte, n*Chunk)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], nr)
	}
	return p
}

// TestMirrorIsEqualInTheEnd ensures that writers during initial synchronisation, during cuts of the link at any byte and during
// the resyncs after them leave nothing different, in each of the three cases.
func TestMirrorIsEqualInTheEnd(t *testing.T) {
	for name, kind := range map[string]func(*testing.T) Volume{"traditional": inPlace, "loose": logged} {
		t.Run(name, func(t *testing.T) {
			rng := newRand(t)
			local, remote := kind(t), kind(t)
			var journal disk.Disk
			if name == "traditional" {
				journal = disk.NewMemory(JournalSize)
			}
			for i := range 64 {
				if err := local.WriteAt(stamp(uint64(i)<<32, 3), int64(rng.IntN(testSize/Chunk-3))*Chunk); err != nil {
					t.Fatal(err)
				}
			}
			x := join(t, &slow{Volume: local, rng: rand.New(rand.NewPCG(rng.Uint64(), 2))}, remote, journal,
				wan.Profile{Delay: time.Millisecond, Rate: 20 << 20}, Config{Queue: 1 << 20, KeepAlive: 200 * time.Millisecond})
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for w := range 4 {
				seed := rng.Uint64()
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(seed, 3))
					for i := uint64(1); ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						n := 1 + rng.IntN(4)
						// Some near where the resync is: the second case is rare.
						at := rng.Int64N(testSize/Chunk - 4)
						if rng.IntN(2) == 0 {
							x.mirror.mu.Lock()
							at = min(x.mirror.pos, testSize/Chunk-4)
							x.mirror.mu.Unlock()
						}
						if err := x.mirror.WriteAt(stamp(uint64(w+1)<<48|i, n), at*Chunk); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for range 8 {
				time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
				x.link.CutAfter(wan.ToTarget, 1+rng.Int64N(300_000))
				time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
				x.link.Heal()
			}
			close(stop)
			wg.Wait()
			x.wait(t)
			same(t, local, remote)
			s := x.mirror.Stats()
			t.Logf("%+v", s)
			if s.Before == 0 || s.At == 0 || s.After == 0 || s.Resyncs < 2 {
				t.Errorf("not all cases were tried: %+v", s)
			}
		})
	}
}

// TestResyncCopiesWhatIsMarked ensures that an outage costs what was written in it, once, and nothing else.
func TestResyncCopiesWhatIsMarked(t *testing.T) {
	local, remote := inPlace(t), inPlace(t)
	x := join(t, local, remote, disk.NewMemory(JournalSize), wan.Profile{}, Config{Equal: true})
	x.wait(t)
	x.link.Cut()
	for x.mirror.Synced() {
		time.Sleep(time.Millisecond)
	}
	for round := range 3 {
		for c := range int64(100) {
			if err := x.mirror.WriteAt(stamp(uint64(round), 1), 7*c*Chunk); err != nil {
				t.Fatal(err)
			}
		}
	}
	if lag := x.mirror.Lag(); lag != 100*Chunk {
		t.Errorf("the lag is %d bytes, want %d", lag, 100*Chunk)
	}
	if !x.mirror.Consistent() {
		t.Error("the mirror is not a state of its source before anything was copied")
	}
	x.link.Heal()
	x.wait(t)
	if !x.mirror.Consistent() {
		t.Error("the mirror is not a state of its source when it has everything")
	}
	if s := x.mirror.Stats(); s.Copied != 100 {
		t.Errorf("%d chunks were copied, want 100", s.Copied)
	}
	same(t, local, remote)
}

// recorder remembers the order of writes.
type recorder struct {
	Volume
	mu    sync.Mutex
	order []uint64
}

func (r *recorder) WriteAt(p []byte, off int64) error {
	r.mu.Lock()
	r.order = append(r.order, binary.LittleEndian.Uint64(p))
	r.mu.Unlock()
	return r.Volume.WriteAt(p, off)
}

// TestReplicationKeepsTheOrder ensures that after synchronisation the backup writes what the source wrote, in its order: the
// queue is FIFO, also when it is full and writers wait.
func TestReplicationKeepsTheOrder(t *testing.T) {
	remote := &recorder{Volume: inPlace(t)}
	x := join(t, inPlace(t), remote, nil, wan.Profile{Delay: time.Millisecond, Rate: 50 << 20}, Config{Equal: true, Queue: 64 << 10})
	x.wait(t)
	rng := newRand(t)
	const n = 1000
	for i := range uint64(n) {
		if err := x.mirror.WriteAt(stamp(i, 1), rng.Int64N(testSize/Chunk)*Chunk); err != nil {
			t.Fatal(err)
		}
		if lag := x.mirror.Lag(); lag > 64<<10+Chunk {
			t.Fatalf("%d bytes are in a queue of 64 KiB", lag)
		}
	}
	x.wait(t)
	if len(remote.order) != n {
		t.Fatalf("%d writes arrived, want %d", len(remote.order), n)
	}
	for i, nr := range remote.order {
		if nr != uint64(i) {
			t.Fatalf("write %d arrived as number %d", nr, i)
		}
	}
}

// TestBatchIsWholeAfterACrash ensures that the power can go at the backup at any moment, and each batch that was answered is
// there in place after recovery, and of the last one all or nothing.
func TestBatchIsWholeAfterACrash(t *testing.T) {
	rng := newRand(t)
	for round := range 50 {
		data, log := disk.NewMemory(testSize), disk.NewMemory(JournalSize)
		v, err := NewInPlace(data, testSize)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBackup(v, log)
		if err != nil {
			t.Fatal(err)
		}
		batches := 1 + rng.IntN(6)
		for nr := 1; nr <= batches; nr++ {
			x := batch{seq: uint64(nr)}
			for c := range int64(8) {
				x.writes = append(x.writes, write{off: c * 3 * Chunk, data: stamp(uint64(nr), 1)})
			}
			if nr < batches {
				if err := b.commit(x, x.encode()); err != nil {
					t.Fatal(err)
				}
				continue
			}
			// The last one gets into the journal, or a part of it in place as well.
			if rng.IntN(2) == 0 {
				if err := b.journal.append(v, x.encode()); err != nil {
					t.Fatal(err)
				}
				x.writes = x.writes[:rng.IntN(9)]
				if err := apply(v, x); err != nil {
					t.Fatal(err)
				}
			}
		}
		after, err := NewInPlace(data.Crash(rng), testSize)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewBackup(after, log.Crash(rng)); err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for c := range int64(8) {
			p := make([]byte, Chunk)
			if err := after.ReadAt(p, c*3*Chunk); err != nil {
				t.Fatal(err)
			}
			seen[binary.LittleEndian.Uint64(p)] = true
		}
		if len(seen) != 1 || !seen[uint64(batches)] && !seen[uint64(batches-1)] {
			t.Fatalf("round %d: of %d batches these are there in place: %v", round, batches, seen)
		}
	}
}

// FuzzReadBatch ensures that no bytes make the decoder panic or take more than they say.
func FuzzReadBatch(f *testing.F) {
	f.Add(batch{seq: 1, writes: []write{{off: 4096, data: stamp(1, 1)}}}.encode())
	f.Add(batch{seq: 2}.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, got, err := readBatch(bytes.NewReader(raw))
		if err == nil && !bytes.Equal(b.encode(), got) {
			t.Errorf("%x is read as %+v", raw, b)
		}
	})
}

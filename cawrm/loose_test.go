package cawrm_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/nbdsrv"
)

// plainDisk is what a plain NBD server has: bytes, and how often they were flushed.
type plainDisk struct {
	mu      sync.Mutex
	b       []byte
	synced  []byte // as of the last flush
	flushes int
	fail    error
	written int64
}

func newPlainDisk(size int64, fill byte) *plainDisk {
	b := bytes.Repeat([]byte{fill}, int(size))
	return &plainDisk{b: b, synced: bytes.Clone(b)}
}

func (d *plainDisk) Size() int64 { return int64(len(d.b)) }
func (d *plainDisk) ReadAt(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.b[off:])
	return nil
}
func (d *plainDisk) WriteAt(p []byte, off int64, _ bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.b[off:], p)
	d.written += int64(len(p))
	return d.fail
}
func (d *plainDisk) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.synced, d.b)
	d.flushes++
	return d.fail
}
func (d *plainDisk) Trim(int64, int64, bool) error { return nil }
func (d *plainDisk) WriteZeroes(off, n int64, _, _ bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.b[off : off+n])
	return d.fail
}
func (d *plainDisk) Extents(off, n int64, fn func(int64, uint32) bool) error { fn(n, 0); return nil }

// at is the content as of the last flush.
func (d *plainDisk) at() []byte { d.mu.Lock(); defer d.mu.Unlock(); return bytes.Clone(d.synced) }

// sent is how many bytes were written to it so far.
func (d *plainDisk) sent() int64 { d.mu.Lock(); defer d.mu.Unlock(); return d.written }

// servePlain serves a disk as export "x" and returns its address.
func servePlain(t *testing.T, d *plainDisk) (url string, stop func()) {
	t.Helper()
	s := nbdsrv.New(nbdsrv.Config{})
	check(t, s.AddExport(nbdsrv.Export{Name: "x", Device: d}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	done := make(chan struct{})
	go func() { _ = s.Serve(ln); close(done) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_ = s.Shutdown(ctx) // it may be in the middle of a request
			<-done
		})
	}
	t.Cleanup(stop)
	return "nbd://" + ln.Addr().String() + "/x", stop
}

// TestLooseTarget: a plain NBD server that holds garbage ends with the volume's content, gets what is written later in order,
// and equals the source at sync_ptr after each flush; a source that crashes goes on from what it has stored.
func TestLooseTarget(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	const chunks = 256
	disk := newPlainDisk(chunks*chunk+12345, 0xee)
	url, _ := servePlain(t, disk)
	d := newDisk(t, aodi.CreateOptions{Size: chunks * chunk})
	v := openVolume(t, d, aodi.Options{})
	for i := range int64(100) {
		write(t, v, i, uint64(i)+1)
	}
	m := startMirror(t, v, cawrm.MirrorConfig{ID: "x", URL: url})
	synced(t, v, m)
	for round := range 4 {
		for i := range 200 {
			lba := rng.Int64N(chunks - 20)
			switch rng.IntN(4) {
			case 0:
				check(t, v.Trim(lba*chunk, 1+rng.Int64N(20)*chunk, false))
			case 1:
				check(t, v.WriteZeroes(lba*chunk, (1+rng.Int64N(20))*chunk, true, false))
			default:
				write(t, v, lba, uint64(round)<<32|uint64(i))
			}
		}
		synced(t, v, m)
		eventually(t, "following", func() bool { return m.Status().Loose == cawrm.LooseFollowing }, func() any { return m.Status() })
		if got := disk.at(); !bytes.Equal(got[:chunks*chunk], content(t, v)) || got[chunks*chunk] != 0xee {
			t.Fatalf("round %d: the target is not the source", round)
		}
		if round%2 == 0 {
			continue
		}
		m.Close()
		check(t, v.Checkpoint())
		d = d.Crash(rng)
		t.Cleanup(d.Free)
		before := disk.sent()
		v = openVolume(t, d, aodi.Options{})
		m = startMirror(t, v, cawrm.MirrorConfig{ID: "x", URL: url})
		synced(t, v, m)
		if n := disk.sent() - before; n > 0 {
			t.Errorf("%d bytes are sent again, though the target had all", n)
		}
	}
}

// TestLooseTargetBelowTheFloor: when the log does not reach back any more, the target gets a cut, and is said to be no point in
// time until that is whole; a cut that was interrupted goes on.
func TestLooseTargetBelowTheFloor(t *testing.T) {
	const chunks = 512
	disk := newPlainDisk(chunks*chunk, 0xee)
	url, stop := servePlain(t, disk)
	v := openVolume(t, newDisk(t, aodi.CreateOptions{Size: chunks * chunk}), aodi.Options{})
	write(t, v, 7, 7)
	s, err := cawrm.NewSource(v, cawrm.MirrorConfig{}, 0)
	check(t, err)
	defer s.Close()
	check(t, s.Add("x", url))
	synced(t, v, mirrorOf(t, s, "x"))
	at := mirrorOf(t, s, "x").Status().SyncPtr
	check(t, s.Set("x", "paused=true"))
	for i := 0; v.HistoryFloor() <= at; i++ { // overwritten until segments of the log are free
		for lba := range int64(chunks - 10) {
			write(t, v, lba, uint64(i+1)<<32|uint64(lba))
		}
		check(t, v.Checkpoint())
	}
	check(t, v.Trim(3*chunk, 2*chunk, false))
	check(t, s.Set("x", "paused=false"))
	synced(t, v, mirrorOf(t, s, "x"))
	if got := disk.at(); !bytes.Equal(got, content(t, v)) {
		t.Fatal("the target is not the source")
	}
	if n := disk.sent(); n > 2*chunks*chunk {
		t.Errorf("%d bytes were written for %d chunks", n, chunks)
	}
	if st := mirrorOf(t, s, "x").Status(); st.Loose != cawrm.LooseFollowing {
		t.Errorf("%+v", st)
	}
	stop()
}

// TestLooseTargetTooSmall: it is refused, and nothing is written.
func TestLooseTargetTooSmall(t *testing.T) {
	disk := newPlainDisk(63*chunk, 0xee)
	url, _ := servePlain(t, disk)
	v := newSource(t, 64)
	write(t, v, 1, 1)
	m := startMirror(t, v, cawrm.MirrorConfig{ID: "x", URL: url})
	stateIs(t, m, cawrm.StateDown, "must be at least as large")
	if disk.sent() > 0 || disk.at()[0] != 0xee {
		t.Error("it was written to")
	}
}

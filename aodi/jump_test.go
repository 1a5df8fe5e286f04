package aodi_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// jumpPair is a source and a mirror that is brought up by jump epochs which are interrupted in every way.
type jumpPair struct {
	t        *testing.T
	rng      *rand.Rand
	h        *history
	stamp    uint64
	ds, dm   *disk.Memory
	src, dst *aodi.Volume
	opt      aodi.Options
	shipped  int                           // data bytes
	lives    int                           // crashes and restarts, of both
	hurt     func(*jumpPair, *disk.Memory) // what befalls a disk after a crash; may be nil
}

// TestJumpEpochInterrupted ensures that a mirror shows its old content until a jump epoch is whole, whichever side is cut
// off, closed or crashes while the source goes on writing, that an interrupted epoch goes on where it stopped, and that in
// the end the mirror is the source's at its position.
func TestJumpEpochInterrupted(t *testing.T) {
	rng := newRand(seedOf(t))
	runs := 8
	if testing.Short() {
		runs = 6
	}
	lives := 0
	for range runs {
		lives += jumpInterrupted(t, newRand(rng.Uint64()), nil)
	}
	t.Logf("%d runs with %d crashes and restarts", runs, lives)
}

func jumpInterrupted(t *testing.T, rng *rand.Rand, hurt func(*jumpPair, *disk.Memory)) int {
	p := &jumpPair{t: t, rng: rng, hurt: hurt, h: &history{chunks: 700}, ds: disk.NewMemory(1 << 30), dm: disk.NewMemory(1 << 30)}
	defer func() { free(t, p.ds); free(t, p.dm) }()
	p.opt = aodi.Options{CheckpointBytes: int64(1+rng.IntN(30)) * 64 << 10, DurableInterval: time.Hour, CheckpointInterval: time.Hour}
	create(t, p.ds, int64(p.h.chunks)*chunk, 64)
	p.src = open(t, p.ds, p.opt)
	p.dst = newMirror(t, p.dm, 32, p.src, p.opt)
	for range 4 {
		p.write(300)
		if at, _ := p.dst.Pointers(); at >= p.src.HistoryFloor() && rng.IntN(3) == 0 {
			if err := p.src.Flush(); err != nil {
				t.Fatal(err)
			}
			_, durable := p.src.Pointers()
			copyLog(t, p.src, p.dst, durable, 1+rng.IntN(1<<19), 1+rng.IntN(9))
		}
		for !p.ship() {
			p.compare()
		}
		p.compare()
	}
	for _, v := range []*aodi.Volume{p.src, p.dst} {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check(t, p.ds)
	check(t, p.dm)
	return p.lives
}

func (p *jumpPair) write(n int) {
	for range n {
		p.h.step(p.t, p.src, p.rng, &p.stamp)
	}
}

// compare holds the mirror's content against the source's at the mirror's position.
func (p *jumpPair) compare() {
	p.t.Helper()
	at, _ := p.dst.Pointers()
	upTo := p.h.until(int(at))
	if got := upTo.prefixOf(p.t, p.dst); !sameState(upTo, got) {
		p.t.Fatalf("mirror at %d shows the first %d records", at, got)
	}
}

// ship ships one jump epoch, or a part of it, and tells whether it was whole.
func (p *jumpPair) ship() bool {
	t := p.t
	t.Helper()
	from, _ := p.dst.Pointers()
	c, err := p.src.OpenCut(cutFrom(p.dst))
	if err != nil {
		t.Fatal(err)
	}
	done := func(whole bool) bool { c.Close(); return whole }
	if c.End == from {
		return done(true)
	}
	var b aodi.LogBatch
	for {
		next := c.Next(1+p.rng.IntN(1<<17), &b)
		if next != nil && !errors.Is(next, io.EOF) {
			t.Fatal(next)
		}
		p.shipped += len(b.Data)
		if err := p.dst.Stage(&b, next != nil); err != nil {
			t.Fatal(err)
		}
		if next != nil {
			break
		}
		switch p.rng.IntN(150) {
		case 0: // the link
			if err := p.dst.Unstage(); err != nil {
				t.Fatal(err)
			}
			return done(false)
		case 1:
			p.crashMirror()
			return done(false)
		case 2:
			c.Close()
			p.restartSource()
			if err := p.dst.Unstage(); err != nil {
				t.Fatal(err)
			}
			return false
		case 3, 4, 5, 6, 7, 8:
			p.write(30)
		case 9, 10, 11, 12, 13:
			if err := p.dst.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		case 14, 15, 16:
			if err := p.src.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p.rng.IntN(4) == 0 {
		p.crashMirror() // whole or not at all
		return done(false)
	}
	if at, err := p.dst.Commit(); err != nil || at != c.End {
		t.Fatalf("committed %d of %d: %v", at, c.End, err)
	}
	return done(true)
}

func (p *jumpPair) crashMirror() {
	t := p.t
	t.Helper()
	p.lives++
	before, _ := p.dst.Pointers()
	crashed := p.dm.Crash(p.rng)
	_ = p.dst.Close()
	free(t, p.dm)
	p.dm = crashed
	check(t, p.dm)
	if p.hurt != nil {
		p.hurt(p, p.dm)
	}
	p.dst = open(t, p.dm, p.opt)
	if at, _ := p.dst.Pointers(); at < before {
		t.Fatalf("mirror at %d after the crash, %d was committed", at, before)
	}
	p.compare()
}

// restartSource closes the source, or takes its power: what was not durable there was not shipped.
func (p *jumpPair) restartSource() {
	t := p.t
	t.Helper()
	p.lives++
	if p.rng.IntN(2) == 0 {
		crashed := p.ds.Crash(p.rng)
		_ = p.src.Close()
		free(t, p.ds)
		p.ds = crashed
	} else if err := p.src.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, p.ds)
	if p.hurt != nil {
		p.hurt(p, p.ds)
	}
	p.src = open(t, p.ds, p.opt)
	end, _ := p.src.Pointers()
	p.h.ops = p.h.ops[:end]
	p.h.flushed = min(p.h.flushed, len(p.h.ops))
}

// TestJumpsInterruptedBelowEachOther ensures that a session which broke off in front of where an older one had come to is not
// shipped again, and neither is what the older one brought behind it; also when the mirror was closed in between.
func TestJumpsInterruptedBelowEachOther(t *testing.T) {
	const size, first, second = 8 << 20, 6 << 20, 3 << 20
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, size, 64)
	src := open(t, ds, aodi.Options{CheckpointBytes: 1 << 20})
	defer src.Close()
	dst := newMirror(t, dm, 64, src, aodi.Options{})
	defer func() { _ = dst.Close() }()
	write := func(stamp byte, n int) {
		t.Helper()
		if err := src.WriteAt(bytes.Repeat([]byte{stamp}, n), 0, true); err != nil {
			t.Fatal(err)
		}
	}
	write(1, size)
	if n := shipPart(t, src, dst, first); n != first {
		t.Fatalf("%d bytes shipped, want %d", n, first)
	}
	write(2, 4<<20) // all of it lies below the cursor
	if n := shipPart(t, src, dst, second); n != second {
		t.Fatalf("%d bytes shipped, want %d", n, second)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, dm)
	dst = open(t, dm, aodi.Options{})
	if n, want := copyCut(t, src, dst, 1<<20), (4<<20-second)+(size-first); n != want {
		t.Errorf("%d bytes shipped, the mirror lacked %d", n, want)
	}
	got := make([]byte, size)
	if err := dst.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Repeat([]byte{2}, 4<<20), bytes.Repeat([]byte{1}, 4<<20)...); !bytes.Equal(got, want) {
		t.Error("the mirror's content is not its source's")
	}
}

// shipPart ships so many bytes of a jump epoch, and breaks off.
func shipPart(t *testing.T, src, dst *aodi.Volume, limit int) (n int) {
	t.Helper()
	c, err := src.OpenCut(cutFrom(dst))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for b := (aodi.LogBatch{}); n < limit; n += len(b.Data) {
		if err := c.Next(1<<20, &b); err != nil {
			t.Fatal(err)
		}
		if err := dst.Stage(&b, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := dst.Unstage(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestJumpThatEndsEarlier ensures that a mirror which has got of an epoch no more than the size, which comes first, takes none that ends
// before: it would show something of a later time. Also when it was closed in between.
func TestJumpThatEndsEarlier(t *testing.T) {
	ds, dm := newDisk(t, 1<<30), newDisk(t, 1<<30)
	create(t, ds, 1<<20, 64)
	src := open(t, ds, aodi.Options{})
	defer src.Close()
	dst := newMirror(t, dm, 64, src, aodi.Options{})
	defer func() { _ = dst.Close() }()
	begin := func() aodi.LogBatch {
		t.Helper()
		if err := src.WriteAt(make([]byte, 1<<20), 0, true); err != nil {
			t.Fatal(err)
		}
		c, err := src.OpenCut(cutFrom(dst))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var b aodi.LogBatch
		if err := c.Next(1<<20, &b); err != nil || len(b.Data) > 0 {
			t.Fatalf("%d bytes of data, %v, want the size alone", len(b.Data), err)
		}
		return b
	}
	early, late := begin(), begin()
	if err := dst.Stage(&late, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := dst.Unstage(); err != nil {
			t.Fatal(err)
		}
		if got := dst.Coming(); got.Newest() != late.End {
			t.Fatalf("the mirror says %v of an epoch up to %d", got, late.End)
		}
		if err := dst.Stage(&early, false); !errors.Is(err, syscall.EINVAL) {
			t.Fatalf("an epoch up to %d behind one up to %d: %v", early.End, late.End, err)
		}
		if err := dst.Close(); err != nil {
			t.Fatal(err)
		}
		dst = open(t, dm, aodi.Options{})
	}
	copyCut(t, src, dst, 1<<20)
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, dm)
}

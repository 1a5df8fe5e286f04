package wan

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pipeLine runs one direction between two in-memory connections. The caller
// writes to in and reads from out; both are closed with the bubble.
func pipeLine(t *testing.T, p Profile) (in, out net.Conn, w *way) {
	t.Helper()
	in, src := net.Pipe()
	dst, out := net.Pipe()
	c := newClock()
	w = newWay(c, p, ToTarget)
	done := make(chan struct{})
	l := newLine(w, src, dst, done)
	closeAll := func() { src.Close(); dst.Close() }
	l.abort, l.cut = closeAll, func(net.Conn) { closeAll() }
	go l.runTake()
	go l.runDeliver()
	t.Cleanup(func() {
		in.Close()
		out.Close()
		closeAll()
		close(done)
		l.close()
	})
	return in, out, w
}

func random(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// The clock in a synctest bubble is virtual, so these times are exact.

func TestLineDelaysEveryByteByTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out, _ := pipeLine(t, Profile{Delay: 30 * time.Millisecond})
		start := time.Now()
		in.Write([]byte("x"))
		io.ReadFull(out, make([]byte, 1))
		if got := time.Since(start); got != 30*time.Millisecond {
			t.Errorf("one byte took %s, want 30ms", got)
		}
	})
}

func TestLineCarriesAStreamAtFullRateWhateverTheDelay(t *testing.T) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			const rate, n = 2_500_000, 5_000_000
			in, out, _ := pipeLine(t, Profile{Delay: delay, Rate: rate})
			start := time.Now()
			sent := random(n)
			go in.Write(sent)
			got := make([]byte, n)
			if _, err := io.ReadFull(out, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Error("the bytes arrived changed")
			}
			want := delay + n*time.Second/rate
			if took := time.Since(start); took < want || took > want+want/50 {
				t.Errorf("delay %s: %d bytes took %s, want %s", delay, n, took, want)
			}
		})
	}
}

func TestLineHoldsNoMoreThanItsCapacity(t *testing.T) {
	for _, piece := range []int{7, 4096} {
		synctest.Test(t, func(t *testing.T) {
			p := Profile{Delay: 50 * time.Millisecond, Rate: 2_500_000}
			in, _, w := pipeLine(t, p)
			go func() {
				for {
					if _, err := in.Write(make([]byte, piece)); err != nil {
						return
					}
				}
			}()
			time.Sleep(time.Minute) // nobody reads at the far end
			taken, _ := w.counts()
			if limit := int64(p.capacity() + p.segment()); taken > limit {
				t.Errorf("pieces of %d: the line took %d bytes, its capacity is %d", piece, taken, limit)
			}
			if piece == 4096 && taken < int64(p.capacity()/2) {
				t.Errorf("the line took only %d bytes of a capacity of %d", taken, p.capacity())
			}
		})
	}
}

func TestLineWithJitterKeepsOrderAndRepeatsFromItsSeed(t *testing.T) {
	arrivals := func(seed uint64) (times []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			in, out, _ := pipeLine(t, Profile{Delay: time.Millisecond, Jitter: 20 * time.Millisecond, Seed: seed})
			start := time.Now()
			go func() {
				for i := range 100 {
					in.Write([]byte{byte(i)})
					time.Sleep(time.Millisecond)
				}
			}()
			for i := range 100 {
				b := make([]byte, 1)
				io.ReadFull(out, b)
				if b[0] != byte(i) {
					t.Fatalf("byte %d arrived as number %d", b[0], i)
				}
				times = append(times, time.Since(start))
			}
		})
		return times
	}
	a, again, other := arrivals(1), arrivals(1), arrivals(2)
	differs := false
	for i := range a {
		if a[i] != again[i] {
			t.Fatalf("seed 1: byte %d arrived after %s and, again, after %s", i, a[i], again[i])
		}
		differs = differs || a[i] != other[i]
	}
	if !differs {
		t.Error("seeds 1 and 2 gave the same arrivals")
	}
}

func TestStallFreezesWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out, w := pipeLine(t, Profile{Delay: 40 * time.Millisecond})
		start := time.Now()
		in.Write([]byte("a"))
		time.Sleep(10 * time.Millisecond)
		w.clock.stop(true)
		time.Sleep(time.Hour)
		in.Write([]byte("b")) // taken, but it goes nowhere yet
		w.clock.stop(false)
		b := make([]byte, 1)
		io.ReadFull(out, b)
		if got := time.Since(start) - time.Hour; b[0] != 'a' || got != 40*time.Millisecond {
			t.Errorf("got %q after 1h + %s, want %q after 1h + 40ms", b, got, "a")
		}
		io.ReadFull(out, b)
		if got := time.Since(start) - time.Hour; b[0] != 'b' || got != 50*time.Millisecond {
			t.Errorf("got %q after 1h + %s, want %q after 1h + 50ms", b, got, "b")
		}
	})
}

func TestProfileChangesUnderAnOpenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out, w := pipeLine(t, Profile{Delay: time.Second})
		w.set(Profile{Delay: time.Millisecond}, ToTarget)
		start := time.Now()
		in.Write([]byte("x"))
		io.ReadFull(out, make([]byte, 1))
		if got := time.Since(start); got != time.Millisecond {
			t.Errorf("one byte took %s after the delay was set to 1ms", got)
		}
	})
}

func TestWayAllowsExactlyTheArmedBytes(t *testing.T) {
	w := newWay(newClock(), Profile{}, ToTarget)
	if n, cut := w.allow(10); n != 10 || cut {
		t.Fatalf("without a cut: allow(10) = %d, %v", n, cut)
	}
	w.arm(15)
	for i, want := range []struct {
		n   int
		cut bool
	}{{10, false}, {5, true}, {0, true}} {
		if n, cut := w.allow(10); n != want.n || cut != want.cut {
			t.Errorf("step %d: allow(10) = %d, %v, want %d, %v", i, n, cut, want.n, want.cut)
		}
	}
	if _, delivered := w.counts(); delivered != 25 {
		t.Errorf("delivered %d, want 25", delivered)
	}
}

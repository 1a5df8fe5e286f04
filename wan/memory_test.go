package wan

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// inProcess makes a link that begins and ends in this process.
func inProcess(t *testing.T, p Profile) (*Link, *Memory) {
	t.Helper()
	m := NewMemory()
	l, err := New(t.Context(), m.Dial, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); l.Close() })
	return l, m
}

// join makes one connection over the link.
func join(t *testing.T, l *Link, m *Memory) (near, far net.Conn) {
	t.Helper()
	near, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = m.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestInProcessConnectionIsALine ensures that the whole of a link works in virtual time, without a socket: connecting takes
// a round trip, a byte the delay, a stream what the rate asks.
func TestInProcessConnectionIsALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 3_000_000, 1_000_000
		l, m := inProcess(t, Profile{Delay: 30 * time.Millisecond, Rate: rate})
		start := time.Now()
		near, far := join(t, l, m)
		if took := time.Since(start); took != 60*time.Millisecond {
			t.Errorf("connecting took %s, want 60ms", took)
		}
		sent := random(n)
		start = time.Now()
		go func() { near.Write(sent); near.(interface{ CloseWrite() error }).CloseWrite() }()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d of %d bytes arrived, %v", len(got), n, err)
		}
		want := 30*time.Millisecond + n*time.Second/rate
		if took := time.Since(start); took < want || took > want+want/50 {
			t.Errorf("%d bytes took %s, want %s", n, took, want)
		}
	})
}

// TestCutAfterHitsAnInProcessConnectionAtItsByte ensures that the far end gets exactly what was allowed, and a reset.
func TestCutAfterHitsAnInProcessConnectionAtItsByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := inProcess(t, Profile{Delay: time.Millisecond})
		near, far := join(t, l, m)
		l.CutAfter(ToTarget, 12_345)
		go near.Write(make([]byte, 50_000))
		var got int
		buf := make([]byte, 1000)
		for {
			n, err := far.Read(buf)
			got += n
			if err != nil {
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the far end saw %v, want a reset", err)
				}
				break
			}
		}
		if delivered := l.Counters().ToTarget; delivered != 12_345 || got > 12_345 {
			t.Errorf("the link delivered %d bytes, the far end read %d, want 12345", delivered, got)
		}
	})
}

// TestScriptHappensOnTime ensures that steps are taken at their times, again and again, and in the order given.
func TestScriptHappensOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Profile{Delay: time.Millisecond, Repeat: 10 * time.Second, Script: []Step{
			{time.Second, "stall"}, {3 * time.Second, "heal"}, {4 * time.Second, "delay 50ms"}, {6 * time.Second, "cut"}, {7 * time.Second, "heal"},
		}}
		l, m := inProcess(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), 18*time.Second)
		defer cancel()
		start := time.Now()
		var did []time.Duration
		go l.Play(ctx, func(Step) { did = append(did, time.Since(start)) })
		near, far := join(t, l, m)
		time.Sleep(1500*time.Millisecond - time.Since(start))
		near.Write([]byte("x"))
		io.ReadFull(far, make([]byte, 1))
		if took := time.Since(start); took < 3*time.Second || took > 3010*time.Millisecond {
			t.Errorf("a byte sent into the stall arrived after %s, want 3 s", took)
		}
		time.Sleep(4500*time.Millisecond - time.Since(start))
		if d := l.Profile().Delay; d != 50*time.Millisecond {
			t.Errorf("the delay is %s after the step that makes it 50ms", d)
		}
		time.Sleep(6500*time.Millisecond - time.Since(start))
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a write after the cut: %v, want a reset", err)
		}
		<-ctx.Done()
		synctest.Wait()
		var want []time.Duration
		for _, round := range []time.Duration{0, 10 * time.Second} {
			for _, s := range p.Script {
				if at := round + s.At; at < 18*time.Second {
					want = append(want, at)
				}
			}
		}
		if !slices.Equal(did, want) {
			t.Errorf("steps at %v, want %v", did, want)
		}
	})
}

// TestMemoryConnectionKeepsDeadlines ensures that a wait ends at its deadline, and only then.
func TestMemoryConnectionKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memoryPipe()
		defer near.Close()
		defer far.Close()
		start := time.Now()
		near.SetReadDeadline(start.Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("a read gave %v after %s, want a deadline after 1s", err, time.Since(start))
		}
		near.SetReadDeadline(time.Time{})
		far.SetWriteDeadline(start.Add(3 * time.Second))
		if n, err := far.Write(make([]byte, 2*memoryBuffer)); !errors.Is(err, os.ErrDeadlineExceeded) || n != memoryBuffer {
			t.Errorf("a write that nobody reads: %d, %v", n, err)
		}
		if _, err := near.Read(make([]byte, 1)); err != nil {
			t.Errorf("a read after the deadline was taken back: %v", err)
		}
	})
}

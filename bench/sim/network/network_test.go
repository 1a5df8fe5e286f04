package network_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/bench/sim/network"
)

// pair is two hosts and a connection between them.
func pair(t *testing.T, seed uint64, w network.Weather) (n *network.Network, a, b *network.Host, out, in net.Conn) {
	t.Helper()
	n = network.New(rand.New(rand.NewPCG(seed, 1)))
	n.SetWeather(w)
	a, b = n.Up("a"), n.Up("b")
	l := b.Listen()
	out, err := a.Dial(context.Background(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	if in, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return n, a, b, out, in
}

// TestCarriesBytesInOrder ensures that delay and small pieces neither lose nor reorder bytes, and that the end comes last.
func TestCarriesBytesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, out, in := pair(t, 1, network.Weather{Delay: time.Second, Late: time.Second, Pieces: 1000})
		want := make([]byte, 1<<20)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		go func() {
			for b := want; len(b) > 0; {
				k := min(len(b), 5000)
				if _, err := out.Write(b[:k]); err != nil {
					t.Error(err)
				}
				b = b[k:]
			}
			out.Close()
		}()
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(want), err)
		}
		in.Close()
	})
}

// TestDeadlines ensures that a silent line ends a read and a full one a write, at the time that was set.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, out, in := pair(t, 1, network.Weather{})
		defer out.Close()
		defer in.Close()
		start := time.Now()
		_ = in.SetReadDeadline(start.Add(3 * time.Second))
		if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		_ = out.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := out.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// TestCutReachesAll ensures that a cut comes at bytes in the middle of what was said, and that of the two sides both,
// one or neither hears of it.
func TestCutReachesAll(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			_, _, _, out, in := pair(t, seed, network.Weather{CutOdds: 1})
			side := func(c net.Conn) chan string {
				heard := make(chan string, 1)
				go func() {
					_ = c.SetDeadline(time.Now().Add(time.Minute))
					go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
					_, err := io.Copy(io.Discard, c)
					switch {
					case errors.Is(err, syscall.ECONNRESET):
						heard <- "reset"
					case errors.Is(err, os.ErrDeadlineExceeded):
						heard <- "silence"
					default:
						heard <- "other"
					}
				}()
				return heard
			}
			a, b := side(out), side(in)
			seen[<-a+" and "+<-b] = true
			out.Close()
			in.Close()
		})
	}
	for _, want := range []string{"reset and reset", "reset and silence", "silence and reset", "silence and silence"} {
		if !seen[want] {
			t.Errorf("of 300 cuts none was heard as %s", want)
		}
	}
}

// TestStall ensures that a stalled line carries neither bytes nor news of an end, and carries both when it moves again.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, _, out, in := pair(t, 1, network.Weather{})
		n.SetWeather(network.Weather{Stalled: true})
		_, _ = out.Write([]byte("news"))
		out.Close()
		_ = in.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := in.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		n.SetWeather(network.Weather{})
		_ = in.SetReadDeadline(time.Time{})
		if got, err := io.ReadAll(in); string(got) != "news" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		in.Close()
	})
}

// TestHostsEnd ensures that a killed process is heard of at once, that a host without power is not, and that after it
// came back a new dial finds it.
func TestHostsEnd(t *testing.T) {
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n, a, b, out, in := pair(t, 1, network.Weather{})
			if silent {
				b.PowerOff()
			} else {
				b.Kill()
			}
			_ = out.SetReadDeadline(time.Now().Add(time.Second))
			_, err := out.Read(make([]byte, 1))
			if errors.Is(err, os.ErrDeadlineExceeded) != silent {
				t.Fatalf("silent %v: %v", silent, err)
			}
			if _, err := in.Write([]byte("x")); err == nil {
				t.Fatal("a dead host writes")
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := a.Dial(ctx, "b:1"); err == nil {
				t.Fatal("a dead host accepts")
			}
			l := n.Up("b").Listen()
			c, err := a.Dial(context.Background(), "b:1")
			if err != nil {
				t.Fatal(err)
			}
			d, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []net.Conn{out, in, c, d} {
				c.Close()
			}
		})
	}
}

// TestOvertaking ensures that a later connection can be accepted before an earlier one.
func TestOvertaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network.New(rand.New(rand.NewPCG(1, 1)))
		n.SetWeather(network.Weather{Late: time.Second})
		a, l := n.Up("a"), n.Up("b").Listen()
		for range 10 {
			if _, err := a.Dial(context.Background(), "b:1"); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		if n.Stats().Overtaken == 0 {
			t.Fatal("ten connections came in the order in which they were dialled")
		}
	})
}

// TestReplay ensures that what a connection said can be said again by someone else.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network.New(rand.New(rand.NewPCG(1, 1)))
		a, l := n.Up("a"), n.Up("b").Listen()
		c, err := a.Dial(context.Background(), "b:1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		c.Close()
		if !n.Replay() {
			t.Fatal("nothing to replay")
		}
		for range 2 {
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(in, b); err != nil || string(b) != "hello" {
				t.Fatalf("%q, %v", b, err)
			}
			in.Close()
		}
	})
}

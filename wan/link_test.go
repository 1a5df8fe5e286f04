package wan_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"cawrm/wan"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs handle for each connection to a listener of its own and returns
// its address. All handlers have ended when the test has.
func serve(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func echo(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() }

func listen(t *testing.T, target string, p wan.Profile) *wan.Link {
	t.Helper()
	l, err := wan.Listen(t.Context(), "127.0.0.1:0", target, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l *wan.Link) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// isReset says whether err is what the end of a reset connection sees.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// exchange sends one byte and waits for it to come back.
func exchange(c net.Conn) error {
	if _, err := c.Write([]byte{42}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// connectAndExchange does the same on a connection of its own.
func connectAndExchange(l *wan.Link) error {
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c)
}

func blob(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	return b
}

func TestLinkCarriesBothWaysAndHalfCloses(t *testing.T) {
	l := listen(t, serve(t, echo), wan.Profile{Delay: 5 * time.Millisecond, Rate: 100_000_000})
	c := dial(t, l)
	sent := blob(3 << 20)
	go func() { c.Write(sent); c.CloseWrite() }()
	got, err := io.ReadAll(c) // ends only if the half-close went there and came back
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back changed, %d were sent", len(got), len(sent))
	}
	n := l.Counters()
	if want := int64(len(sent)); n.ToTarget != want || n.FromTarget != want || n.TakenTo != want || n.Connections != 1 {
		t.Errorf("counters %+v, want %d bytes each way on one connection", n, want)
	}
}

// A relay that waits for each segment before it takes the next would need
// 50 ms a segment: more than 10 s for what the rate allows in 0.3 s.
func TestLinkPipelinesOverALongLine(t *testing.T) {
	l := listen(t, serve(t, func(c *net.TCPConn) { io.Copy(io.Discard, c); c.CloseWrite() }),
		wan.Profile{Delay: 50 * time.Millisecond, Rate: 25_000_000})
	c := dial(t, l)
	start := time.Now()
	c.Write(blob(8 << 20))
	c.CloseWrite()
	io.ReadAll(c)
	took := time.Since(start)
	if least := 100*time.Millisecond + 8<<20*time.Second/25_000_000; took < least {
		t.Errorf("8 MiB took %s, the line cannot carry them in less than %s", took, least)
	}
	if took > 5*time.Second {
		t.Errorf("8 MiB took %s: the line does not pipeline", took)
	}
}

func TestConnectionsShareTheRate(t *testing.T) {
	const each, rate = 1 << 20, 8 << 20
	l := listen(t, serve(t, func(c *net.TCPConn) { io.Copy(io.Discard, c); c.CloseWrite() }), wan.Profile{Rate: rate})
	start := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		c := dial(t, l)
		wg.Go(func() { c.Write(blob(each)); c.CloseWrite(); io.ReadAll(c) })
	}
	wg.Wait()
	if took, least := time.Since(start), 4*each*time.Second/rate; took < least {
		t.Errorf("4 connections took %s for what the line carries in %s", took, least)
	}
}

func TestCutResetsUntilHealed(t *testing.T) {
	l := listen(t, serve(t, echo), wan.Profile{})
	a, b := dial(t, l), dial(t, l)
	for _, c := range []net.Conn{a, b} {
		if err := exchange(c); err != nil {
			t.Fatal(err)
		}
	}
	l.Cut()
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("after the cut a read says %v, want a reset", err)
		}
	}
	if err := connectAndExchange(l); err == nil {
		t.Error("a new connection works across a cut link")
	}
	l.Heal()
	if err := connectAndExchange(l); err != nil {
		t.Errorf("after Heal: %v", err)
	}
	if n := l.Counters(); n.Cuts != 1 || n.Refused == 0 {
		t.Errorf("counters %+v, want one cut and a refused connection", n)
	}
}

func TestCutAfterDeliversExactlyThatMany(t *testing.T) {
	for _, n := range []int64{1, 4095, 4096, 100_001, 1<<20 + 1} {
		received := make(chan int64, 1)
		l := listen(t, serve(t, func(c *net.TCPConn) {
			got, _ := io.Copy(io.Discard, c)
			received <- got
		}), wan.Profile{Delay: time.Millisecond, Rate: 50_000_000})
		c := dial(t, l)
		l.CutAfter(wan.ToTarget, n)
		// The kernel's buffers may take all of it, then the read is the one
		// that sees the reset.
		_, werr := c.Write(blob(4 << 20))
		_, rerr := c.Read(make([]byte, 1))
		if !isReset(werr) && !isReset(rerr) {
			t.Errorf("cut after %d: the client saw %v and %v, want a reset", n, werr, rerr)
		}
		if got := <-received; got != n {
			t.Errorf("cut after %d: %d bytes arrived", n, got)
		}
		if got := l.Counters().ToTarget; got != n {
			t.Errorf("cut after %d: %d bytes counted", n, got)
		}
	}
}

func TestCutAfterCountsBytesFromTheTarget(t *testing.T) {
	l := listen(t, serve(t, func(c *net.TCPConn) { c.Write(blob(1 << 20)) }), wan.Profile{})
	l.CutAfter(wan.FromTarget, 777)
	if got, err := io.Copy(io.Discard, dial(t, l)); got != 777 || !isReset(err) {
		t.Errorf("got %d bytes and %v, want 777 and a reset", got, err)
	}
}

func TestStallKeepsConnectionsOpenAndLosesNothing(t *testing.T) {
	l := listen(t, serve(t, echo), wan.Profile{Delay: time.Millisecond})
	c := dial(t, l)
	if err := exchange(c); err != nil {
		t.Fatal(err)
	}
	l.Stall(true)
	c.Write([]byte("through"))
	fresh := dial(t, l)
	fresh.Write([]byte("too"))
	for _, c := range []net.Conn{c, fresh} {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stalled link gave %d bytes and %v, want nothing", n, err)
		}
		c.SetReadDeadline(time.Time{})
	}
	l.Stall(false)
	for c, want := range map[net.Conn]string{c: "through", fresh: "too"} {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("after the stall: %q, %v, want %q", got, err, want)
		}
	}
}

func TestRefuseLeavesOpenConnectionsAlone(t *testing.T) {
	l := listen(t, serve(t, echo), wan.Profile{})
	c := dial(t, l)
	if err := exchange(c); err != nil {
		t.Fatal(err)
	}
	l.Refuse(true)
	if err := connectAndExchange(l); err == nil {
		t.Error("a refusing link carried a new connection")
	}
	if err := exchange(c); err != nil {
		t.Errorf("the open connection: %v", err)
	}
}

func TestDeadTargetResetsTheClient(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	l := listen(t, ln.Addr().String(), wan.Profile{})
	if err := connectAndExchange(l); err == nil {
		t.Error("a link without a target answered")
	}
}

func TestResetOfOneEndReachesTheOther(t *testing.T) {
	seen := make(chan error, 1)
	l := listen(t, serve(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		seen <- err
	}), wan.Profile{})
	c := dial(t, l)
	c.Write([]byte("x"))
	c.SetLinger(0)
	c.Close()
	if err := <-seen; !isReset(err) {
		t.Errorf("the target saw %v, want a reset", err)
	}
}

func TestProfilesByName(t *testing.T) {
	for _, name := range wan.Names() {
		p, err := wan.Lookup(name)
		if err != nil || p.Name != name {
			t.Errorf("Lookup(%q) = %v, %v", name, p, err)
		}
	}
	if _, err := wan.Lookup("moon"); err == nil {
		t.Error("there is a profile called moon")
	}
	if _, err := wan.Listen(t.Context(), "127.0.0.1:0", "127.0.0.1:1", wan.Profile{Delay: -1}); err == nil {
		t.Error("a negative delay was accepted")
	}
}

package wan

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestForwardKeepsToTheProfile ensures what becomes of packets between the devices: their rate, delay and order, a bounded
// queue, and loss from the seed.
func TestForwardKeepsToTheProfile(t *testing.T) {
	start := time.Now()
	p := Profile{Delay: 10 * time.Millisecond, Jitter: 3 * time.Millisecond, Rate: 1_500_000, Queue: 150_000, Seed: 1}
	w := newForward(p, 0)
	taken := 0
	for range 200 { // a burst of 300 KB
		if w.take(make([]byte, 1500), start) {
			taken++
		}
	}
	if taken != 100 {
		t.Errorf("the queue took %d packets of a burst, want the 100 that it holds", taken)
	}
	last := time.Time{}
	for i := range taken {
		_, wait, _ := w.due(start)
		at := start.Add(wait)
		b, _, _ := w.due(at)
		least := start.Add(p.Delay + time.Duration(i+1)*time.Millisecond)
		if b == nil || at.Before(least) || at.After(least.Add(p.Jitter)) {
			t.Fatalf("packet %d is due after %s, want %s and up to %s more", i, at.Sub(start), least.Sub(start), p.Jitter)
		}
		if at.Before(last) {
			t.Fatalf("packet %d overtakes", i)
		}
		last = at
	}
}

func TestForwardLosesAndReordersFromItsSeed(t *testing.T) {
	lost := func(seed uint64) (which []int) {
		w := newForward(Profile{Loss: 0.1, Seed: seed}, 0)
		for i := range 10_000 {
			if !w.take(nil, time.Now()) {
				which = append(which, i)
			}
		}
		return which
	}
	a, again, other := lost(1), lost(1), lost(2)
	if math.Abs(float64(len(a))-1000) > 150 {
		t.Errorf("%d of 10000 packets were lost, want about 1000", len(a))
	}
	if len(a) != len(again) || a[0] != again[0] || len(a) == len(other) && a[0] == other[0] {
		t.Error("the losses do not follow from the seed")
	}
	w := newForward(Profile{Delay: time.Second, Reorder: 0.5, Seed: 1}, 0)
	now, overtook := time.Now(), 0
	for i := range 100 {
		w.take([]byte{byte(i)}, now.Add(time.Duration(i)*time.Millisecond))
	}
	highest := byte(0)
	for range 100 {
		b, _, _ := w.due(now.Add(time.Hour))
		if b[0] < highest {
			overtook++
		}
		highest = max(highest, b[0])
	}
	if overtook == 0 {
		t.Error("no packet was overtaken")
	}
}

// TestKernelTCPOverPackets runs the kernel's TCP through TUN devices: delay, rate, cut, and that nothing stays behind.
func TestKernelTCPOverPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root")
	}
	n, err := NewNet(TUN, Profile{})
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	n.Close()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	l, err := ListenIn(t.Context(), TUN, "127.0.0.1:0", target.Addr().String(), Profile{Delay: 20 * time.Millisecond, Rate: 2_500_000, Loss: 0.001, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte{1})
	io.ReadFull(c, make([]byte, 1))
	start := time.Now()
	c.Write([]byte{1})
	io.ReadFull(c, make([]byte, 1))
	if took := time.Since(start); took < 40*time.Millisecond {
		t.Errorf("a byte came back after %s, the line has 40ms", took)
	}
	const size = 1 << 20
	start = time.Now()
	go c.Write(make([]byte, size))
	if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(start), size*time.Second/2_500_000; took < least {
		t.Errorf("1 MiB came back after %s, the line needs %s", took, least)
	}
	l.Cut()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the cut: %v, want a reset", err)
	}
}

// TestNetemNeedsTheKernelsHelp ensures that its absence is said, and what to do.
func TestNetemNeedsTheKernelsHelp(t *testing.T) {
	n, err := NewNet(Netem, Profile{})
	if err == nil {
		n.Close()
		t.Skip("SKIPPED: this kernel has netem")
	}
	if text := err.Error(); !strings.Contains(text, "root") && !strings.Contains(text, "tun needs none") {
		t.Errorf("%v does not say what is missing", err)
	}
}

func TestUnknownCongestionControl(t *testing.T) {
	if _, err := Congestion("carrier-pigeon"); err == nil || !strings.Contains(err.Error(), "it has") && !strings.Contains(err.Error(), "may set") {
		t.Errorf("carrier-pigeon: %v", err)
	}
	if name, err := Congestion(""); err != nil || name == "" {
		t.Errorf("the system's own: %q, %v", name, err)
	}
}

// Package crowd is for tests of what a server does when very many connect to it and say nothing.
package crowd

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// OwnSide is about what a connection costs the test itself in memory, in bytes.
const OwnSide = 512

// spare is how many files the rest of the process may have open.
const spare = 1000

// Allowed is how many connections a test may open: n, or fewer when this process may not have so many files open,
// which is said. It raises the limit as far as that is permitted.
func Allowed(t testing.TB, n int) int {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	if want := uint64(n + spare); r.Cur < want {
		more := syscall.Rlimit{Cur: want, Max: max(want, r.Max)}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil { // the hard limit is for root to raise
			more = syscall.Rlimit{Cur: min(want, r.Max), Max: r.Max}
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more); err != nil {
				t.Fatal(err)
			}
		}
		r = more
	}
	if all := int(min(r.Cur, uint64(n+spare))) - spare; all < n {
		t.Logf("RLIMIT_NOFILE is %d: only %d connections instead of %d", r.Cur, max(all, spare/4), n)
		return max(all, spare/4)
	}
	return n
}

// Open opens n connections, which the test's end closes. A server that drops some is no error.
func Open(t testing.TB, network, addr string, n int) []net.Conn {
	var all []net.Conn
	t.Cleanup(func() {
		for _, c := range all {
			c.Close()
		}
	})
	for len(all) < n {
		c, err := net.Dial(network, addr)
		switch {
		case err == nil:
			all = append(all, c)
		case errors.Is(err, syscall.EAGAIN): // a unix socket's backlog is full
			time.Sleep(time.Millisecond)
		default:
			t.Errorf("connection %d: %v", len(all), err)
			return all
		}
	}
	return all
}

// Held is the memory that this process holds, in bytes: live heap and stacks.
func Held() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Files is how many files this process has open; -1 where nobody can tell.
func Files() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(list)
}

// Latencies tells how long honest work took while something else went on: a line for the log.
type Latencies []time.Duration

// Time adds what f takes.
func (l *Latencies) Time(f func()) {
	start := time.Now()
	f()
	*l = append(*l, time.Since(start))
}

// Log says the figures. They are not judged: machines differ.
func (l Latencies) Log(t testing.TB, what string) {
	if len(l) == 0 {
		t.Logf("%s: none", what)
		return
	}
	s := slices.Sorted(slices.Values(l))
	t.Logf("%s: %d, median %v, 99 %% %v, longest %v", what, len(s), s[len(s)/2], s[len(s)*99/100], s[len(s)-1])
}

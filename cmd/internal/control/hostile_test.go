package control_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cawrm/bench/crowd"
	"cawrm/cmd/internal/control"
)

func oneVolume() control.Status {
	return control.Status{Volumes: []control.Volume{{Name: "vm"}}}
}

// asks is an honest question, each on a connection of its own.
func asks(t *testing.T, path string) error {
	t.Helper()
	c := control.NewClient(path)
	defer c.Close()
	s, err := c.Status(context.Background())
	if err == nil && s.Volumes[0].Name != "vm" {
		t.Errorf("%+v", s)
	}
	return err
}

// TestTenThousandHalfOpen ensures that 10,000 connections, silent or in the middle of a request, cost the daemon the
// memory and the files of 64, and that questions among them are answered.
func TestTenThousandHalfOpen(t *testing.T) {
	n := crowd.Allowed(t, 10_000)
	path := start(t, oneVolume)
	memory, files := crowd.Held(), crowd.Files()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			for _, c := range crowd.Open(t, "unix", path, n/10)[:n/20] {
				_, _ = io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\nSlow: ")
			}
		}
	}()
	var answers crowd.Latencies
	tries := 0
	for alive := true; alive || len(answers) == 0; {
		select {
		case <-done:
			alive = false
		default:
		}
		answers.Time(func() {
			for tries++; asks(t, path) != nil; tries++ { // dropped for a newer one, or the backlog is full
				time.Sleep(time.Millisecond)
			}
		})
	}
	held := crowd.Held() - memory - int64(n)*crowd.OwnSide
	t.Logf("%d connections: %d KiB and %d files on the daemon's side; %d tries", n, held>>10, crowd.Files()-files-n, tries)
	answers.Log(t, "status")
	if held > 64*64<<10 {
		t.Errorf("%d bytes are held", held)
	}
	if more := crowd.Files() - files - n; files > 0 && more > 64+8 {
		t.Errorf("%d files are open on the daemon's side", more)
	}
}

// TestHostileRequests ensures that no request costs more than its bounds or keeps others from being answered.
func TestHostileRequests(t *testing.T) {
	path := start(t, func() control.Status {
		s := oneVolume()
		s.Volumes[0].Recovery = strings.Repeat("x", 100<<10)
		return s
	})
	const get = "GET /v1/status HTTP/1.1\r\nHost: x\r\n"
	for name, says := range map[string]string{
		"noise":               strings.Repeat("\xa5\x00\r\n", 1000),
		"another protocol":    "NBDMAGICIHAVEOPT\x00\x00\x00\x03",
		"an endless line":     "GET /" + strings.Repeat("a", 64<<10),
		"an endless header":   get + "A: " + strings.Repeat("a", 64<<10),
		"endless headers":     get + strings.Repeat("A: b\r\n", 10_000),
		"a body of 4 GiB":     "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967295\r\n\r\n" + strings.Repeat("a", 64<<10),
		"a length below zero": get + "Content-Length: -1\r\n\r\n",
		"two lengths":         get + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"an endless chunk":    "PUT /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"an unknown method":   "FROB /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"an unknown path":     "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
		"an unknown version":  "GET /v1/status HTTP/9.9\r\n\r\n",
		"nobody reads":        strings.Repeat(get+"\r\n", 100),
		"half a request":      get[:30],
	} {
		var said sync.WaitGroup
		for _, c := range crowd.Open(t, "unix", path, 70) { // more than the server takes at a time
			said.Go(func() {
				_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				_, _ = io.WriteString(c, says)
			})
		}
		said.Wait()
		if err := asks(t, path); err != nil {
			t.Errorf("%s: an honest question gets %v", name, err)
		}
	}
}

// TestBusyVisitorStays ensures that a request that is in work is not dropped for a crowd.
func TestBusyVisitorStays(t *testing.T) {
	var works atomic.Bool
	goOn := make(chan struct{})
	path := start(t, func() control.Status {
		if works.CompareAndSwap(false, true) {
			<-goOn
		}
		return oneVolume()
	})
	answered := make(chan error, 1)
	go func() { answered <- asks(t, path) }()
	for !works.Load() {
		time.Sleep(time.Millisecond)
	}
	crowd.Open(t, "unix", path, 500)
	if err := asks(t, path); err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := <-answered; err != nil {
		t.Errorf("the busy one was dropped: %v", err)
	}
}

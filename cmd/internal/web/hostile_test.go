package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cawrm/bench/crowd"
	"cawrm/cmd/internal/control"
)

const token = "0123456789abcdef"

// start serves with actions that tell what they were asked for.
func start(t testing.TB, asked func(request any)) (network, addr string) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{
		Metrics:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }),
		Status:   func() control.Status { return control.Status{Volumes: []control.Volume{{Name: "vm"}}} },
		History:  func(volume string) (control.History, error) { return control.History{}, errors.New("no " + volume) },
		Mirror:   func(_ context.Context, q control.MirrorRequest) (any, error) { asked(q); return q, nil },
		Snapshot: func(_ context.Context, q control.SnapshotRequest) (any, error) { asked(q); return q, nil },
		Role:     func(_ context.Context, q control.RoleRequest) (any, error) { asked(q); return q, nil },
		Token:    token, Logger: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close() // what is silent is cut
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "unix", l.Addr().String()
}

// visit gets a page over a connection of its own.
func visit(network, addr, path string) (string, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(b), err
}

// TestTenThousandHalfOpen ensures that 10,000 connections, silent, in the middle of a request, or with answers that they do not
// read, cost the memory and the files of 64, and that visits among them are answered.
func TestTenThousandHalfOpen(t *testing.T) {
	n := crowd.Allowed(t, 10_000)
	network, addr := start(t, func(any) {})
	memory, files := crowd.Held(), crowd.Files()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			list := crowd.Open(t, network, addr, n/10)
			for i, c := range list[:n/20] {
				says := "GET / HTTP/1.1\r\nHost: x\r\nSlow: "
				if i%50 == 0 {
					says = strings.Repeat("GET /uPlot.iife.min.js HTTP/1.1\r\nHost: x\r\n\r\n", 100)
				}
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(c, says)
			}
		}
	}()
	var answers crowd.Latencies
	for alive := true; alive || len(answers) == 0; {
		select {
		case <-done:
			alive = false
		default:
		}
		answers.Time(func() {
			for {
				text, err := visit(network, addr, "/metrics")
				if err == nil {
					if !strings.HasSuffix(text, "up 1\n") {
						t.Errorf("the answer is %q", text)
					}
					return
				}
				time.Sleep(time.Millisecond) // dropped for a newer one, or the backlog is full
			}
		})
	}
	held := crowd.Held() - memory - int64(n)*crowd.OwnSide
	t.Logf("%d connections: %d KiB and %d files on the daemon's side", n, held>>10, crowd.Files()-files-n)
	answers.Log(t, "metrics")
	if held > 64*64<<10 {
		t.Errorf("%d bytes are held", held)
	}
	if more := crowd.Files() - files - n; files > 0 && more > 64+8 {
		t.Errorf("%d files are open on the daemon's side", more)
	}
}

// TestUnreadAnswers ensures that clients in every place who read no answers keep nobody out.
func TestUnreadAnswers(t *testing.T) {
	network, addr := start(t, func(any) {})
	for _, c := range crowd.Open(t, network, addr, 64) {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = io.WriteString(c, strings.Repeat("GET /uPlot.iife.min.js HTTP/1.1\r\nHost: x\r\n\r\n", 100))
		_, _ = c.Read(make([]byte, 1)) // it is being answered
	}
	for range 3 {
		if text, err := visit(network, addr, "/api/status"); err != nil || !strings.Contains(text, `"vm"`) {
			t.Fatalf("%q, %v", text, err)
		}
	}
}

// FuzzRequest ensures that the server takes any bytes: it answers or hangs up, soon, with little; and that nothing is done but what
// the page may do, for nobody but who knows the token.
func FuzzRequest(f *testing.F) {
	post := func(path, auth, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", path, auth, len(body), body)
	}
	for _, s := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /metrics HTTP/1.0\r\n\r\n", "GET /api/sites HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /api/history?site=x&volume=%ff HTTP/1.1\r\nHost: x\r\n\r\n", "GET /debug/pprof/profile HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nRange: bytes=0-4294967296\r\n\r\n", "POST /api/role HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\nx",
		post("/api/mirror", "Bearer "+token, `{"op":"pause","volume":"vm","id":"b"}`), post("/api/mirror", "Bearer "+token, `{"op":"remove","volume":"vm","id":"b"}`),
		post("/api/role", "Bearer "+token, `{"op":"promote","volume":"vm","force":true}`), post("/api/snapshot", "Bearer x", `{"op":"create","volume":"vm"}`), "x"} {
		f.Add([]byte(s))
	}
	requests := make(chan any, 1000)
	network, addr := start(f, func(q any) { requests <- q })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = c.Write(append(bytes.Clone(b), "\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n"...))
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		const most = 64 << 20
		if n, err := io.Copy(io.Discard, io.LimitReader(c, most)); errors.Is(err, os.ErrDeadlineExceeded) || n == most {
			t.Fatalf("it does not end: %d bytes, %v", n, err)
		}
		for len(requests) > 0 {
			q := <-requests
			if !bytes.Contains(b, []byte(token)) {
				t.Errorf("done without the token: %+v", q)
			}
			switch q := q.(type) {
			case control.MirrorRequest:
				err = mayMirror(q)
			case control.SnapshotRequest:
				err = maySnapshot(q)
			case control.RoleRequest:
				err = mayRole(q)
			}
			if err != nil {
				t.Errorf("done: %+v", q)
			}
		}
	})
}

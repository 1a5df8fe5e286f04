package control_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cawrm/cmd/internal/control"
)

// FuzzRequest ensures that the control server takes any bytes: it answers or hangs up, soon, with little, and asks the
// volumes only for what it knows.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"GET /v1/status HTTP/1.1\r\nHost: daemon\r\n\r\n", "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\nx",
		"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "GET //v1/status HTTP/1.0\r\n\r\n", "x"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	s := control.NewServer(func() control.Status { return control.Status{Volumes: []control.Volume{{Name: "vm"}}} }, slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(l) }()
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = c.Write(append(b, "\r\n\r\nGET /v1/status HTTP/1.0\r\n\r\n"...))
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		all, err := io.ReadAll(io.LimitReader(c, 1<<20))
		if errors.Is(err, os.ErrDeadlineExceeded) || len(all) == 1<<20 {
			t.Fatalf("it does not end: %d bytes, %v", len(all), err)
		}
		for r := bufio.NewReader(bytes.NewReader(all)); ; {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				break
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode == http.StatusOK && resp.ContentLength > 0 && !bytes.Contains(body, []byte(`"vm"`)) {
				t.Errorf("the answer %q", body)
			}
		}
	})
}

// FuzzAnswer ensures that commands take any bytes from what listens at the control socket.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"volumes":[{"name":"vm","end_ptr":3,"mirrors":[{"id":"b"}]}]}`, `{"volumes":null}`, `{"error":"x"}`, `[]`, ``} {
		f.Add(uint16(200), []byte(s))
		f.Add(uint16(404), []byte(s))
	}
	path := filepath.Join(f.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	type answer struct {
		code int
		body []byte
	}
	next := make(chan answer, 1)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := <-next
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body)
	})}
	go func() { _ = s.Serve(l) }()
	f.Cleanup(func() { s.Close() })
	c := control.NewClient(path)
	f.Cleanup(c.Close)
	f.Fuzz(func(t *testing.T, code uint16, body []byte) {
		if code = 200 + code%400; code == 204 || code == 304 {
			return // these have no body
		}
		next <- answer{int(code), body}
		st, err := c.Status(context.Background())
		if err == nil && code != 200 {
			t.Errorf("an answer %d is taken", code)
		}
		for _, v := range st.Volumes {
			if _, err := st.Volume(v.Name); err != nil {
				t.Error(err)
			}
		}
	})
}

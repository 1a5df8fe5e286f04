package main

import (
	"crypto/rand"
	"errors"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/cmd/internal/control"
)

// TestSentProgress: while a file is sent, the daemon tells how far it is to whoever knows the id, and nothing afterwards.
func TestSentProgress(t *testing.T) {
	dir := t.TempDir()
	disk := create(t, filepath.Join(dir, "disk"), "--size", "64M")
	v, err := aodi.Open(disk, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 1<<20)
	for off := int64(0); off < 32<<20 && err == nil; off += 1 << 20 {
		rand.Read(random)
		err = v.WriteAt(random, off, false)
	}
	if err = errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	s := serve(t, disk, "--name", "db", "--nbd", "unix:"+filepath.Join(dir, "nbd"))
	s.run("snapshot", "create", "db@one").want(t, 0, "")
	client := control.NewClient(strings.TrimPrefix(s.control, "unix:"))
	defer client.Close()
	ask := func() (state control.SentState) {
		t.Helper()
		if err := client.Call(t.Context(), "sent", control.SentRequest{Volume: "db", ID: "mine"}, &state); err != nil {
			t.Fatal(err)
		}
		return state
	}
	last, written := 0.0, 0
	look := writer(func(p []byte) (int, error) {
		written += len(p)
		part := ask().Progress
		if part == 0 && written > 24<<20 {
			return len(p), nil // the daemon has written all of it, and pipes hold the rest
		}
		if part < last || part > 1 || written < 4<<20 && part > 0.9 {
			t.Errorf("%v after %v, with %d bytes here", part, last, written)
		}
		last = part
		return len(p), nil
	})
	err = client.Send(t.Context(), "send", url.Values{"volume": {"db"}, "to": {"one"}, "id": {"mine"}}, io.Writer(look))
	if err != nil || last < 0.5 {
		t.Errorf("%v, at the end %v", err, last)
	}
	if state := ask(); state.Progress != 0 {
		t.Errorf("afterwards %+v", state)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestExpected: the size of a file is told from how far it is, and never less than what is there.
func TestExpected(t *testing.T) {
	for _, c := range []struct {
		done int64
		part float64
		want int64
	}{{0, 0, 0}, {100, 0.001, 0}, {100, 0.25, 400}, {100, 1, 100}} {
		if got := expected(c.done, c.part); got != c.want {
			t.Errorf("%d at %v: %d, want %d", c.done, c.part, got, c.want)
		}
	}
}

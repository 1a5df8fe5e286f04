package listen_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/cmd/internal/listen"
	"cawrm/cmd/internal/value"
)

func TestUnix(t *testing.T) {
	a := value.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	l, err := listen.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(a.Address); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if listen.AddrOf(l) != a {
		t.Error(listen.AddrOf(l))
	}
	if _, err := listen.Open(a); !errors.Is(err, listen.ErrInUse) || !strings.Contains(err.Error(), a.String()) {
		t.Errorf("a live socket is taken over: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(a.Address); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket file stays behind")
	}

	// What a killed process leaves.
	l, err = listen.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listen.Open(a); err != nil {
		t.Fatalf("a stale socket is not taken over: %v", err)
	}
	l.Close()
}

func TestNotASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen.Open(value.Addr{Network: "unix", Address: path}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "data" {
		t.Error("the file is gone")
	}
	missing := filepath.Join(t.TempDir(), "no", "s")
	if _, err := listen.Open(value.Addr{Network: "unix", Address: missing}); err == nil || !strings.Contains(err.Error(), "directory does not exist") {
		t.Error(err)
	}
}

func TestTCP(t *testing.T) {
	l, err := listen.Open(value.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := listen.AddrOf(l)
	if _, err := listen.Open(a); !errors.Is(err, listen.ErrInUse) || !strings.Contains(err.Error(), a.String()) {
		t.Error(err)
	}
	if _, err := listen.Open(value.Addr{Network: "tcp", Address: "192.0.2.1:1"}); err == nil || !strings.Contains(err.Error(), "no such address") {
		t.Error(err)
	}
}

func TestMakeDir(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cawrm", "control.sock")
	for range 2 {
		if err := listen.MakeDir(socket); err != nil {
			t.Fatal(err)
		}
	}
}

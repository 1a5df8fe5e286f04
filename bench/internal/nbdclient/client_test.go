package nbdclient_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
)

const size = 8 << 20

// oracle starts nbdkit's memory plugin on a unix socket: a server that is not
// ours. It skips where nbdkit is not installed.
func oracle(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("SKIPPED: nbdkit is not installed, so there is no foreign server to try the client on")
	}
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	args = append([]string{"-f", "-U", socket}, args...)
	cmd := exec.Command("nbdkit", append(args, "memory", fmt.Sprint(size))...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return "unix:" + socket
}

func dial(t *testing.T, addr string) *nbdclient.Client {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := nbdclient.Dial(t.Context(), addr, "")
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWritesReadBackFromAForeignServer(t *testing.T) {
	c := dial(t, oracle(t))
	if c.Size() != size {
		t.Fatalf("size %d, want %d", c.Size(), size)
	}
	model := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	done := make(chan *nbdclient.Request, 64)
	for i := range 64 { // all outstanding at once, in disjoint places
		data := bytes.Repeat([]byte{byte(i + 1)}, 1+rng.IntN(60000))
		offset := int64(i) * size / 64
		copy(model[offset:], data)
		c.Start(&nbdclient.Request{Command: nbdclient.Write, Offset: offset, Data: data, Done: done})
	}
	for range 64 {
		if r := <-done; r.Err != nil {
			t.Fatalf("write at %d: %v", r.Offset, r.Err)
		}
	}
	if err := c.Trim(0, 4096, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteZeroes(size/2, 100_000, nbdclient.FUA); err != nil {
		t.Fatal(err)
	}
	clear(model[:4096])
	clear(model[size/2 : size/2+100_000])
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	err := c.Sweep(func(offset int64, piece []byte) error {
		if !bytes.Equal(piece, model[offset:offset+int64(len(piece))]) {
			return fmt.Errorf("the megabyte at %d reads back changed", offset)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := sha256.New()
	if err := c.Sum(got); err != nil || !bytes.Equal(got.Sum(nil), sum(model)) {
		t.Errorf("checksum differs, %v", err)
	}
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func TestServerErrorsLeaveTheConnectionUsable(t *testing.T) {
	c := dial(t, oracle(t, "-r"))
	if c.Flags()&nbdclient.ReadOnly == 0 {
		t.Error("a read-only export is not said to be read-only")
	}
	var e nbdclient.Error
	if err := c.Write(0, make([]byte, 512), 0); !errors.As(err, &e) {
		t.Errorf("a write to a read-only export: %v, want an error from the server", err)
	}
	if err := c.Read(0, make([]byte, 512)); err != nil {
		t.Errorf("a read after it: %v", err)
	}
}

func TestCloseFailsLaterRequests(t *testing.T) {
	c := dial(t, oracle(t))
	c.Close()
	if err := c.Flush(); !errors.Is(err, nbdclient.ErrClosed) {
		t.Errorf("flush after Close: %v", err)
	}
}

func TestServerThatIsNoNBDServerIsRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			c.Close()
		}
	}()
	if _, err := nbdclient.Dial(context.Background(), ln.Addr().String(), ""); err == nil {
		t.Error("a web server was taken for an NBD server")
	}
}

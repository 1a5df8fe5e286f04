package nbdsrv_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"

	"cawrm/nbdsrv"
)

// TestImports guards what the package must not pull in: go-nbd's client needs a GPL-3.0 module.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-test", ".").Output()
	if err != nil {
		t.Skip("go list: ", err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(dep, "github.com/pojntfx/go-nbd/pkg/client") || strings.HasPrefix(dep, "github.com/pilebones/") {
			t.Error("imports ", dep)
		}
		if strings.HasPrefix(dep, "cawrm/") && !strings.HasPrefix(dep, "cawrm/nbdsrv") && dep != "cawrm/bench/crowd" { // that for tests
			t.Error("nbdsrv stands alone, and imports ", dep)
		}
	}
}

// oracle is go-nbd's server on one end of a unix socket. It reads NBD_OPT_GO and serves simple
// replies, which is enough to compare reads and writes with.
func oracle(t testing.TB, size int) *client {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_ = server.Handle(nc, []*server.Export{{Backend: backend.NewMemoryBackend(make([]byte, size))}}, nil)
	}()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); l.Close(); <-done })
	c := &client{t: t, nc: nc, replies: map[uint64]*reply{}}
	c.recv(18)
	c.send([]byte{0, 0, 0, 1})
	c.enter("")
	return c
}

// TestOracle gives the same reads and writes to both servers.
func TestOracle(t *testing.T) {
	const size = 4 * mib
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: newMemDev(size)})
	ours, theirs := h.open(compact), oracle(t, size)
	if ours.size != theirs.size {
		t.Fatalf("sizes %d and %d", ours.size, theirs.size)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 2000 {
		n := 1 + rng.IntN(1<<(1+rng.IntN(19)))
		off := uint64(rng.IntN(size - n))
		if rng.IntN(2) == 0 {
			p := pattern(i, n)
			ours.write(off, p, 0)
			theirs.write(off, p, 0)
		} else if a, b := ours.read(off, n), theirs.read(off, n); !bytes.Equal(a, b) {
			t.Fatalf("step %d: read %d+%d differs", i, off, n)
		}
	}
	if !bytes.Equal(ours.read(0, size), theirs.read(0, size)) {
		t.Fatal("final content differs")
	}
}

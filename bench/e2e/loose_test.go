package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
)

// plain is a foreign NBD server over a file.
type plain struct {
	name string
	need string
	// args are those of the program, for a file and a place to listen at.
	args func(dir, file, addr string) []string
	unix bool
}

var plains = []plain{
	{"nbdkit", "nbdkit", func(_, file, addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		return []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "file", file}
	}, false},
	{"nbdkit without zeroes", "nbdkit", func(_, file, addr string) []string {
		_, port, _ := net.SplitHostPort(addr)
		return []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "--filter=nozero", "file", file}
	}, false},
	{"qemu-nbd", "qemu-nbd", func(_, file, addr string) []string {
		return []string{"qemu-nbd", "-t", "-f", "raw", "--discard=unmap", "-k", addr, file}
	}, true},
	{"nbd-server", "nbd-server", func(dir, file, addr string) []string {
		host, port, _ := net.SplitHostPort(addr)
		conf := filepath.Join(dir, "nbd.conf")
		text := fmt.Sprintf("[generic]\nlistenaddr = %s\nport = %s\n[x]\nexportname = %s\nflush = true\nfua = true\ntrim = true\n", host, port, file)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			panic(err)
		}
		return []string{"nbd-server", "-C", conf, "-p", filepath.Join(dir, pidFile)} // it goes into the background by itself
	}, false},
}

// A plain NBD server gets every record in order, also after it, and after the source, was killed; what it has not got any
// more is found out, and it ends byte-identical. The target is larger than the volume, holds garbage before, and what
// lies beyond the volume stays.
func TestLooseTargets(t *testing.T) {
	for _, p := range plains {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.need)
			const size, more = 16 << 20, 1 << 20
			d := dir(t)
			target := filepath.Join(d, "target")
			garbage := noise(size+more, 9)
			ok(t, os.WriteFile(target, garbage, 0o600))
			addr, url := "", ""
			if p.unix {
				addr = filepath.Join(d, "s")
				url = "nbd+unix:///?socket=" + addr
			} else {
				var err error
				addr, err = site.FreeAddr()
				ok(t, err)
				url = "nbd://" + addr + "/"
				if p.name == "nbd-server" {
					url += "x"
				}
			}
			stop := startPlain(t, p, d, target, addr)
			defer func() { stop() }()
			s := newSite(t, "source")
			ok(t, s.Create("16M"))
			ok(t, s.Start(t.Context()))
			c := dial(t, s)
			ok(t, c.Write(4096, noise(3<<20, 1), 0)) // before there is a mirror
			ok(t, c.Trim(1<<20, 64<<10, 0))
			ok(t, c.Flush())
			_, err := s.Run("mirror", "add", "vol", "loose", url, "--control", s.Control)
			ok(t, err)
			following(t, s)
			same(t, s, target, size)
			for i := range 5 {
				ok(t, c.Write(int64(i)*2<<20, noise(1<<20, uint64(i)+10), 0))
				ok(t, c.Trim(int64(i)*2<<20+64<<10, 128<<10, 0))
				ok(t, c.WriteZeroes(int64(i)*2<<20+512<<10, 8192, nbdclient.NoHole))
				ok(t, c.Flush())
				switch i {
				case 1:
					stop()
					stop = startPlain(t, p, d, target, addr)
				case 3:
					s.Kill()
					ok(t, s.Start(t.Context()))
					c = dial(t, s)
				}
			}
			following(t, s)
			same(t, s, target, size)
			f, err := os.Open(target)
			ok(t, err)
			defer f.Close()
			rest := make([]byte, more)
			_, err = f.ReadAt(rest, size)
			ok(t, err)
			if string(rest) != string(garbage[size:]) {
				t.Error("what lies beyond the volume was changed")
			}
			sent := lag(t, s).SentBytes
			ok(t, s.Stop())
			ok(t, s.Start(t.Context()))
			following(t, s)
			if n := lag(t, s).SentBytes; n > 1<<20 {
				t.Errorf("%d bytes were sent again after a restart in order (%d before)", n, sent)
			}
			ok(t, s.Stop())
			stop()
		})
	}
}

// A target that is too small is refused with a word that says so, and so is one that cannot be written.
func TestLooseTargetsRefused(t *testing.T) {
	need(t, "nbdkit")
	s := newSite(t, "source")
	ok(t, s.Create("16M"))
	ok(t, s.Start(t.Context()))
	for what, args := range map[string][]string{
		"has 8388608 bytes, the volume 16777216: the target must be at least as large": {"memory", "8M"},
		"the export is read-only": {"-r", "memory", "16M"},
	} {
		addr, err := site.FreeAddr()
		ok(t, err)
		_, port, _ := net.SplitHostPort(addr)
		stop := startServer(t, append([]string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", port}, args...), addr, false)
		_, err = s.Run("mirror", "add", "vol", "loose", "nbd://"+addr+"/", "--control", s.Control)
		ok(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		ok(t, s.Wait(ctx, "to refuse it", func(v site.Volume) bool { return strings.Contains(v.Mirrors[0].LastError, what) }))
		cancel()
		_, err = s.Run("mirror", "remove", "vol", "loose", "--control", s.Control)
		ok(t, err)
		stop()
	}
	ok(t, s.Stop())
}

func startPlain(t *testing.T, p plain, dir, file, addr string) (stop func()) {
	t.Helper()
	started := startServer(t, p.args(dir, file, addr), addr, p.unix)
	return func() {
		started()
		if b, err := os.ReadFile(filepath.Join(dir, pidFile)); err == nil {
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			ok(t, err)
			os.Remove(filepath.Join(dir, pidFile))
			syscall.Kill(-pid, syscall.SIGKILL) // it leads a session of its own, with a process for each client
			for syscall.Kill(-pid, 0) == nil {  // until they are gone one of them can take the next server's connection, and keeps its address
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// pidFile is where a server that goes into the background leaves its number.
const pidFile = "pid"

// startServer returns when somebody listens. stop kills it.
func startServer(t *testing.T, args []string, addr string, unix bool) (stop func()) {
	t.Helper()
	network := "tcp"
	if unix {
		network = "unix"
		os.Remove(addr)
	}
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stderr, cmd.Stdout = &out, &out
	ok(t, cmd.Start())
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial(network, addr)
		if err == nil {
			c.Close()
			return stop
		}
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("%v does not listen: %v\n%s", args, err, out.String())
		}
	}
}

func lag(t *testing.T, s *site.Site) site.Mirror {
	t.Helper()
	v, err := s.Status(t.Context())
	ok(t, err)
	return v.Mirrors[0]
}

// following waits until the loose target has everything and says that it is consistent.
func following(t *testing.T, s *site.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ok(t, s.WaitSynced(ctx))
	ok(t, s.Wait(ctx, "to follow", func(v site.Volume) bool { return v.Mirrors[0].Loose == "following" }))
}

// same compares the volume with the beginning of a file.
func same(t *testing.T, s *site.Site, file string, size int64) {
	t.Helper()
	f, err := os.Open(file)
	ok(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, io.LimitReader(f, size))
	ok(t, err)
	if a, b := checksum(t, s), hex.EncodeToString(h.Sum(nil)); a != b {
		t.Fatalf("the target differs: sha256 %s, the source %s", b, a)
	}
}

package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cawrm/cmd/internal/nbdkernel"
)

// TestPackages builds the packages (make test-package sets the variable): twice the same bytes; installed into a clean root,
// started with the configuration that they bring, upgraded with a volume in use, removed and purged, and the volume is left.
func TestPackages(t *testing.T) {
	if os.Getenv("CAWRM_PACKAGE_TEST") == "" {
		t.Skip("it builds for a minute: make test-package")
	}
	first, second, newer := build(t, "1.0.0"), buildElsewhere(t, "1.0.0"), build(t, "1.0.1")
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s differs from build to build", name)
		}
	}
	if len(first) != 4 { // .deb, .rpm, tarball, and their sums
		t.Errorf("built: %v", first)
	}
	for _, kind := range []string{"deb", "rpm"} {
		t.Run(kind, func(t *testing.T) { tryIn(t, kind, find(t, first, kind), find(t, newer, kind)) })
	}
}

// build returns the sums of what was built, by name.
func build(t *testing.T, version string) map[string][32]byte {
	t.Helper()
	return buildBy(t, exec.Command("./build.sh"), version)
}

// buildElsewhere builds the same files in another folder, with other times and modes, at another hour, and as root on a machine of another
// name.
func buildElsewhere(t *testing.T, version string) map[string][32]byte {
	t.Helper()
	dir := t.TempDir()
	git, err := exec.Command("git", "rev-parse", "--absolute-git-dir").Output()
	if err != nil {
		t.Fatal(err)
	}
	script := `cd "$(git rev-parse --show-toplevel)" && git ls-files -coz --exclude-standard | xargs -0 cp --parents -t "$1" && chmod -R g+w "$1" && find "$1" -exec touch -d 2001-02-03 {} +`
	if out, err := exec.Command("bash", "-c", script, "copy", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	as := []string{"bash", "-c", `umask 002; exec "$0" "$@"`}
	if os.Getuid() == 0 {
		as = []string{"unshare", "--uts", "bash", "-c", `hostname elsewhere; umask 002; exec "$0" "$@"`}
	}
	c := exec.Command(as[0], append(as[1:], filepath.Join(dir, "cmd/packages/build.sh"))...)
	c.Env = append(os.Environ(), "GIT_DIR="+strings.TrimSpace(string(git)), "TZ=Pacific/Auckland")
	return buildBy(t, c, version)
}

// buildBy lets c, which lacks only the folder, build.
func buildBy(t *testing.T, c *exec.Cmd, version string) map[string][32]byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	c.Args = append(c.Args, dir)
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = append(c.Env, "VERSION="+version)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list, _ := os.ReadDir(dir)
	sums := map[string][32]byte{}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = sha256.Sum256(b)
		paths[version+e.Name()] = filepath.Join(dir, e.Name())
	}
	return sums
}

// paths of what was built, by version and name.
var paths = map[string]string{}

func find(t *testing.T, built map[string][32]byte, kind string) string {
	t.Helper()
	for name := range built {
		if strings.HasSuffix(name, "."+kind) {
			for key, path := range paths {
				if strings.HasSuffix(key, name) {
					return path
				}
			}
		}
	}
	t.Fatalf("no .%s in %v", kind, built)
	return ""
}

// root is a directory with busybox, an empty package database, and nothing else.
type root struct {
	t    *testing.T
	dir  string
	kind string
}

func newRoot(t *testing.T, kind string) *root {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		t.Skip("it needs root and busybox-static")
	}
	if kind == "rpm" {
		if _, err := exec.LookPath("rpm"); err != nil {
			t.Skip("it needs rpm")
		}
	}
	r := &root{t, t.TempDir(), kind}
	for _, d := range []string{"bin", "etc", "tmp", "run", "var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/bin", "proc", "dev"} {
		r.must(os.MkdirAll(filepath.Join(r.dir, d), 0o755))
	}
	b, err := os.ReadFile(busybox)
	r.must(err)
	r.must(os.WriteFile(filepath.Join(r.dir, "bin/busybox"), b, 0o755))
	for _, f := range []string{"etc/passwd", "etc/group", "var/lib/dpkg/status", "var/lib/dpkg/available"} {
		r.must(os.WriteFile(filepath.Join(r.dir, f), nil, 0o644))
	}
	r.must(os.WriteFile(filepath.Join(r.dir, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644))
	r.must(os.WriteFile(filepath.Join(r.dir, "etc/group"), []byte("root:x:0:\n"), 0o644))
	r.inside("/bin/busybox", "--install", "-s", "/bin")
	// Debian's busybox has no adduser; this is what the script needs of a distribution.
	r.must(os.WriteFile(filepath.Join(r.dir, "bin/useradd"), []byte("#!/bin/sh\necho cawrm:x:900:900::/var/lib/cawrm:/bin/false >>/etc/passwd\necho cawrm:x:900: >>/etc/group\n"), 0o755))
	return r
}

func (r *root) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *root) command(args ...string) *exec.Cmd {
	c := exec.Command(args[0], args[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
	c.Dir, c.Env = "/", []string{"PATH=/bin:/usr/bin"}
	return c
}

func (r *root) inside(args ...string) string {
	r.t.Helper()
	out, err := r.command(args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("in the root: %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (r *root) outside(args ...string) {
	r.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		r.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

func (r *root) install(file string) {
	r.t.Helper()
	if r.kind == "rpm" {
		r.outside("rpm", "--root", r.dir, "-U", "--nodeps", "--nosignature", file)
		return
	}
	r.outside("dpkg", "--root="+r.dir, "--force-depends", "--force-bad-path", "--log=/dev/null", "--install", file)
}

func (r *root) remove(purge bool) {
	r.t.Helper()
	switch {
	case r.kind == "deb" && purge:
		r.outside("dpkg", "--root="+r.dir, "--force-bad-path", "--log=/dev/null", "--purge", "cawrm")
	case r.kind == "deb":
		r.outside("dpkg", "--root="+r.dir, "--force-bad-path", "--log=/dev/null", "--remove", "cawrm")
	case !purge:
		r.outside("rpm", "--root", r.dir, "-e", "cawrm")
	}
}

func (r *root) has(path string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return err == nil
}

// serve starts the daemon in the root with the installed configuration, as the unit does.
func (r *root) serve() *exec.Cmd {
	r.t.Helper()
	r.must(os.MkdirAll(filepath.Join(r.dir, "run/cawrm"), 0o755))
	c := r.command("/usr/bin/cawrm", "serve", "--config", "/etc/cawrm/cawrm.toml", "--control", "unix:/run/cawrm/control.sock")
	var log bytes.Buffer
	c.Stderr = &log
	r.must(c.Start())
	r.t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		if r.t.Failed() {
			r.t.Log(log.String())
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if r.command("/usr/bin/cawrm", "status").Run() == nil {
			return c
		}
		if time.Now().After(end) {
			r.t.Fatalf("it never serves: %s", log.String())
		}
	}
}

func tryIn(t *testing.T, kind, pkg, newer string) {
	r := newRoot(t, kind)
	r.install(pkg)
	if out := r.inside("/usr/bin/cawrm", "version"); !strings.Contains(out, "cawrm 1.0.0, commit ") {
		t.Error(out)
	}
	for _, path := range []string{"usr/lib/systemd/system/cawrm.service", "usr/share/man/man1/cawrm-serve.1.gz", "etc/cawrm/cawrm.toml",
		"usr/share/bash-completion/completions/cawrm", "var/lib/cawrm", "usr/share/doc/cawrm/copyright"} {
		if !r.has(path) {
			t.Errorf("%s is missing", path)
		}
	}
	if !strings.Contains(r.inside("/bin/ls", "-ld", "/var/lib/cawrm"), "cawrm") {
		t.Error("the folder of the volumes is not the daemon's user's")
	}
	r.inside("/usr/bin/cawrm", "create", "/var/lib/cawrm/db.img", "--size", "16M")
	daemon := r.serve()
	r.inside("/usr/bin/cawrm", "volume", "add", "db", "/var/lib/cawrm/db.img")
	want := bytes.Repeat([]byte("data"), 1024)
	client := r.dial()
	client.write(want)

	// While a client is on the volume.
	r.install(newer)
	client.write(want)
	if out := r.inside("/usr/bin/cawrm", "version"); !strings.Contains(out, "cawrm 1.0.1, commit ") {
		t.Error(out)
	}
	client.Close()
	r.must(daemon.Process.Signal(syscall.SIGTERM))
	r.must(daemon.Wait())
	daemon = r.serve() // the new one, with the volume that was added to the file of the old one
	if got := r.dial().read(len(want)); !bytes.Equal(got, want) {
		t.Error("the volume reads something else after the upgrade")
	}
	r.must(daemon.Process.Signal(syscall.SIGTERM))
	r.must(daemon.Wait())

	r.remove(false)
	if r.has("usr/bin/cawrm") || r.has("usr/lib/systemd/system/cawrm.service") {
		t.Error("removed, and still there")
	}
	r.remove(true)
	if !r.has("var/lib/cawrm/db.img") {
		t.Error("the volume is gone with the package")
	}
}

// disk speaks just enough NBD.
type disk struct {
	r *root
	c io.ReadWriteCloser
}

func (r *root) dial() disk {
	r.t.Helper()
	c, _, err := nbdkernel.Dial(context.Background(), "unix", filepath.Join(r.dir, "run/cawrm/nbd.sock"), "db")
	r.must(err)
	return disk{r, c}
}

func (d disk) Close() { d.c.Close() }

func (d disk) ask(command byte, length int, data []byte) []byte {
	d.r.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, uint32(command))
	b = append(b, make([]byte, 16)...) // cookie, offset
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	_, err := d.c.Write(append(b, data...))
	d.r.must(err)
	answer := make([]byte, 16)
	if command == 0 {
		answer = make([]byte, 16+length)
	}
	_, err = io.ReadFull(d.c, answer)
	d.r.must(err)
	if !bytes.Equal(answer[4:8], []byte{0, 0, 0, 0}) {
		d.r.t.Fatalf("command %d: error %x", command, answer[4:8])
	}
	return answer[16:]
}

// write also makes it durable.
func (d disk) write(p []byte)    { d.r.t.Helper(); d.ask(1, len(p), p); d.ask(3, 0, nil) }
func (d disk) read(n int) []byte { d.r.t.Helper(); return d.ask(0, n, nil) }

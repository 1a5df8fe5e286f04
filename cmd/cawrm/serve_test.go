package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
)

// patience bounds waiting for a daemon; nothing is measured by it.
const patience = time.Minute

// site is a running daemon.
type site struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     logBuffer
	control string // unix:/path
	notify  *net.UnixConn
}

// logBuffer is written by the daemon and read by the test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve starts a daemon and returns when it says to systemd that it is ready.
func serve(t *testing.T, args ...string) *site {
	t.Helper()
	return launch(t, func(*exec.Cmd) {}, args...)
}

// launch is serve with a change of how it is started.
func launch(t *testing.T, change func(*exec.Cmd), args ...string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, control: "unix:" + filepath.Join(dir, "control.sock")}
	notify := filepath.Join(dir, "notify.sock")
	var err error
	if s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.notify.Close() })
	s.cmd = program(t, append([]string{"serve", "--control", s.control}, args...)...)
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+notify)
	s.cmd.Stderr = &s.log
	change(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("log of %q:\n%s", args, s.log.String())
		}
	})
	s.hear("READY=1")
	return s
}

// hear waits for what the daemon tells systemd.
func (s *site) hear(want string) {
	s.t.Helper()
	b := make([]byte, 256)
	_ = s.notify.SetReadDeadline(time.Now().Add(patience))
	n, err := s.notify.Read(b)
	if err != nil || string(b[:n]) != want {
		s.t.Fatalf("systemd was told %q, %v; want %q; log:\n%s", b[:n], err, want, s.log.String())
	}
}

// hearPrefix is hear where the rest is not known.
func (s *site) hearPrefix(want string) {
	s.t.Helper()
	b := make([]byte, 256)
	_ = s.notify.SetReadDeadline(time.Now().Add(patience))
	n, err := s.notify.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), want) {
		s.t.Fatalf("systemd was told %q, %v; want %q; log:\n%s", b[:n], err, want, s.log.String())
	}
}

// stop sends SIGTERM and wants exit code 0.
func (s *site) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.hear("STOPPING=1")
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("after SIGTERM: %v; log:\n%s", err, s.log.String())
	}
}

func (s *site) status(args ...string) result {
	s.t.Helper()
	return runProgram(s.t, append([]string{"status", "--control", s.control}, args...)...)
}

// command runs one that talks to this daemon.
func (s *site) command(args ...string) result {
	s.t.Helper()
	return runProgram(s.t, append(args, "--control", s.control)...)
}

// volumes are the daemon's.
func (s *site) volumes() []control.Volume {
	s.t.Helper()
	r := s.status("--json")
	var st control.Status
	if err := json.Unmarshal([]byte(r.out), &st); err != nil || r.code != 0 {
		s.t.Fatalf("%v: code %d, %s%s", err, r.code, r.out, r.stderr)
	}
	return st.Volumes
}

// volume is the daemon's only volume.
func (s *site) volume() control.Volume {
	s.t.Helper()
	list := s.volumes()
	if len(list) != 1 {
		s.t.Fatalf("%+v", list)
	}
	return list[0]
}

// until waits for a state of the volume.
func (s *site) until(what string, is func(control.Volume) bool) control.Volume {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		v := s.volume()
		if is(v) {
			return v
		}
		if time.Now().After(end) {
			s.t.Fatalf("never %s: %+v", what, v)
		}
	}
}

func create(t *testing.T, path string, args ...string) string {
	t.Helper()
	runProgram(t, append([]string{"create", path}, args...)...).want(t, 0, "created")
	return path
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	path := create(t, filepath.Join(dir, "disk.img"), "--size", "64M")
	socket := filepath.Join(dir, "nbd.sock")
	s := serve(t, path, "--nbd", "unix:"+socket, "--nbd", "127.0.0.1:0")

	v := s.volume()
	if v.Name != "disk.img" || v.Role != "primary" || v.Size != 64<<20 || len(v.NBD) != 2 || len(v.Lineage) != 1 || v.VolumeID == "" ||
		len(v.Mirrors) != 0 || v.Mirrors == nil || v.EndPtr < v.DurablePtr {
		t.Errorf("%+v", v)
	}
	s.status().want(t, 0, "disk.img")
	s.status("disk.img").want(t, 0, "disk.img")
	s.status("other").want(t, 1, `no volume "other"; the daemon serves: disk.img`)
	for _, name := range []string{"disk.img", ""} {
		for _, addr := range []string{"unix:" + socket, v.NBD[1]} {
			wantExport(t, addr, name, 64<<20, false)
		}
	}

	// Whatever is taken is told by name, and the first daemon does not notice.
	other := create(t, filepath.Join(dir, "other.img"), "--size", "1M")
	own := "unix:" + filepath.Join(dir, "own.sock")
	runProgram(t, "serve", path, "--control", own).want(t, 1, path)
	runProgram(t, "serve", other, "--control", s.control).want(t, 1, "in use by a running process")
	runProgram(t, "serve", other, "--control", own, "--nbd", "unix:"+socket).want(t, 1, "--nbd: unix:"+socket)
	runProgram(t, "serve", other, "--control", own, "--nbd", v.NBD[1]).want(t, 1, v.NBD[1])
	runProgram(t, "check", path).want(t, 1, path)
	s.status().want(t, 0, "disk.img")

	s.stop()
	for _, file := range []string{socket, strings.TrimPrefix(s.control, "unix:")} {
		if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays behind: %v", file, err)
		}
	}
	runProgram(t, "check", path).want(t, 0, "OK")
}

// TestServeAfterKill: sockets that a killed daemon left are no obstacle.
func TestServeAfterKill(t *testing.T) {
	dir := t.TempDir()
	path := create(t, filepath.Join(dir, "disk.img"), "--size", "64M")
	args := []string{path, "--name", "db", "--nbd", "unix:" + filepath.Join(dir, "nbd.sock"), "--control", "unix:" + filepath.Join(dir, "c.sock")}
	first := serve(t, args...)
	_ = first.cmd.Process.Kill()
	_ = first.cmd.Wait()
	second := serve(t, args...)
	second.control = args[len(args)-1]
	if v := second.volume(); v.Name != "db" || v.Recovery == "" {
		t.Errorf("%+v", v)
	}
	second.stop()
}

// TestTwoSites: a mirror takes identity and size from its source, and is shown read-only.
func TestTwoSites(t *testing.T) {
	dir := t.TempDir()
	disk := create(t, filepath.Join(dir, "disk.img"), "--size", "64M")
	copied := create(t, filepath.Join(dir, "copy.img"), "--mirror")
	b := serve(t, copied, "--name", "disk", "--peer", "127.0.0.1:0", "--nbd", "127.0.0.1:0")
	empty := b.volume()
	if empty.Role != "mirror" || empty.Size != 0 || empty.VolumeID != "" || empty.Source == nil || empty.Source.Connected {
		t.Errorf("%+v", empty)
	}
	wantExport(t, empty.NBD[0], "disk", 0, true)

	a := serve(t, disk, "--name", "disk", "--mirror", "b=cawrm://"+empty.Peer[0]+"/disk", "--mirror", "cawrm://127.0.0.1:1/disk")
	v := a.until("synced", func(v control.Volume) bool {
		return v.Mirrors[0].State == "synced" && v.Mirrors[1].State == "down"
	})
	m := v.Mirrors[0]
	if m.ID != "b" || m.SyncPtr != v.DurablePtr || m.SyncPtr != v.EndPtr || m.LagRecords != 0 || m.LagBytes != 0 || m.LagSeconds != 0 {
		t.Errorf("%+v", m)
	}
	if m := v.Mirrors[1]; m.ID != "127.0.0.1" || !strings.Contains(m.LastError, "refused") {
		t.Errorf("%+v", m)
	}
	a.status().want(t, 0, "disk/b")
	full := b.until("fed", func(v control.Volume) bool { return v.Source.Connected })
	if full.Size != 64<<20 || full.VolumeID != v.VolumeID || full.EndPtr != v.EndPtr || len(full.Lineage) != 1 || full.Lineage[0] != v.Lineage[0] {
		t.Errorf("%+v\nsource %+v", full, v)
	}
	wantExport(t, full.NBD[0], "disk", 64<<20, true)

	// Another volume for the same mirror is refused, and both sides say why.
	c := serve(t, create(t, filepath.Join(dir, "third.img"), "--size", "64M"), "--mirror", "cawrm://"+empty.Peer[0]+"/disk")
	c.until("refused", func(v control.Volume) bool { return v.Mirrors[0].State == "down" && v.Mirrors[0].LastError != "" })
	c.stop()
	a.stop()
	b.until("alone", func(v control.Volume) bool { return !v.Source.Connected })
	b.stop()
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	path := create(t, filepath.Join(dir, "disk.img"), "--size", "64M")
	socket := "unix:" + filepath.Join(dir, "nbd.sock")
	for _, mode := range []string{"require", "on"} {
		s := serve(t, path, "--nbd", "127.0.0.1:0", "--nbd", socket, "--tls-cert", cert, "--tls-key", key, "--tls-ca", cert, "--tls", mode)
		tcp := s.volume().NBD[0]
		if mode == "on" {
			wantExport(t, tcp, "disk.img", 64<<20, false)
		} else if _, _, err := nbdkernel.Dial(context.Background(), "tcp", tcp, "disk.img"); err == nil || !strings.Contains(err.Error(), "wants TLS") {
			t.Errorf("served without TLS: %v", err)
		}
		wantExport(t, socket, "disk.img", 64<<20, false)
		s.stop()
	}
	notACert := filepath.Join(dir, "not-a-cert")
	if err := os.WriteFile(notACert, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "serve", path, "--tls-cert", cert, "--tls-key", key, "--tls-ca", notACert).want(t, 1, "no certificate in it")
}

// wantExport negotiates as a client does. An empty export cannot be told from one of size 0.
func wantExport(t *testing.T, addr, name string, size int64, readOnly bool) {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, e, err := nbdkernel.Dial(context.Background(), network, addr, name)
	if err != nil {
		t.Error(err)
		return
	}
	c.Close()
	if e.Size != size || e.ReadOnly() != readOnly || e.Flags&nbdkernel.FlagMultiConn == 0 || e.Flags&nbdkernel.FlagSendFlush == 0 {
		t.Errorf("%s at %s: %+v, want %d bytes, read-only %v", name, addr, e, size, readOnly)
	}
}

func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	c, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", c), write("key.pem", "PRIVATE KEY", kb)
}

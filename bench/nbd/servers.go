package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
)

// contender is a server that can be measured.
type contender struct {
	name  string
	start func(ctx context.Context, c config, s *server) error
}

func (k contender) title() string { return k.name }

// contenders lists the servers; the first is what the ratios are of.
func contenders(mirror bool) []contender {
	if mirror {
		return []contender{{"cawrm+mirror", startMirrored}, {"cawrm", startCawrm}}
	}
	return []contender{
		{"cawrm", startCawrm},
		{"nbdkit-file", startNbdkitFile},
		{"nbdkit-memory", startNbdkitMemory},
		{"qemu-none", startQemuNone},
		{"qemu-writeback", startQemuWriteback},
	}
}

// server is a running contender.
type server struct {
	name    string
	dir     string // of its files
	addr    string // unix:/path
	export  string
	uri     string
	command string // as shown in the report
	version string

	cmd    *exec.Cmd
	log    bytes.Buffer
	source *site.Site // of cawrm
	mirror *site.Site
}

func startAll(ctx context.Context, c config, list []contender) (running []*server, err error) {
	for _, k := range list {
		s := &server{name: k.name, dir: filepath.Join(c.dir, k.name)}
		if err := os.RemoveAll(s.dir); err != nil {
			return running, err
		}
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return running, err
		}
		// A socket's path may have 107 bytes, fewer than a directory's.
		socket, err := os.MkdirTemp("", "bench")
		if err != nil {
			return running, err
		}
		s.addr = "unix:" + filepath.Join(socket, "nbd.sock")
		running = append(running, s)
		if err := k.start(ctx, c, s); err != nil {
			return running, fmt.Errorf("start %s: %w", k.name, err)
		}
		if err := s.fill(ctx); err != nil {
			return running, fmt.Errorf("fill %s: %w", k.name, err)
		}
	}
	return running, nil
}

func (s *server) socket() string { return strings.TrimPrefix(s.addr, "unix:") }

// image makes a fresh sparse raw image.
func (s *server) image(c config) (string, error) {
	size, err := parseSize(c.size)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, "image.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	return path, os.Truncate(path, size)
}

func parseSize(s string) (int64, error) {
	var n int64
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err != nil || n <= 0 {
		return 0, fmt.Errorf("size %q is not a number with M or G", s)
	}
	switch unit {
	case "M":
		return n << 20, nil
	case "G":
		return n << 30, nil
	}
	return 0, fmt.Errorf("size %q is not a number with M or G", s)
}

// launch runs a foreign server and waits for its socket.
func (s *server) launch(ctx context.Context, version []string, args ...string) error {
	if _, err := exec.LookPath(args[0]); err != nil {
		return fmt.Errorf("%s is not installed (bench/setup.sh installs it as root with apt-get)", args[0])
	}
	s.uri = "nbd+unix:///?socket=" + s.socket()
	s.command = strings.Join(args, " ")
	if out, err := exec.Command(version[0], version[1:]...).Output(); err == nil {
		s.version, _, _ = strings.Cut(string(out), "\n")
	}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 500 {
		if c, err := nbdclient.Dial(ctx, s.addr, ""); err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("it does not answer:\n" + s.log.String())
}

func startNbdkitFile(ctx context.Context, c config, s *server) error {
	image, err := s.image(c)
	if err != nil {
		return err
	}
	return s.launch(ctx, []string{"nbdkit", "--version"}, "nbdkit", "-f", "-U", s.socket(), "file", image)
}

func startNbdkitMemory(ctx context.Context, c config, s *server) error {
	return s.launch(ctx, []string{"nbdkit", "--version"}, "nbdkit", "-f", "-U", s.socket(), "memory", c.size)
}

func startQemu(ctx context.Context, c config, s *server, flags ...string) error {
	image, err := s.image(c)
	if err != nil {
		return err
	}
	args := append([]string{"qemu-nbd", "-f", "raw", "-k", s.socket(), "-t", "-e", "16"}, flags...)
	return s.launch(ctx, []string{"qemu-nbd", "--version"}, append(args, image)...)
}

func startQemuWriteback(ctx context.Context, c config, s *server) error {
	return startQemu(ctx, c, s, "--cache=writeback")
}

// startQemuNone takes the asynchronous I/O with which qemu is fastest here:
// native and io_uring are not to be had everywhere.
func startQemuNone(ctx context.Context, c config, s *server) error {
	probe := workload{name: "probe", args: []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--fsync=64"}}
	short := c
	short.seconds = time.Second
	best, bestIOPS := "", 0.0
	var failed error
	for _, aio := range []string{"native", "io_uring", "threads"} {
		err := startQemu(ctx, c, s, "--cache=none", "--aio="+aio)
		if err == nil {
			err = s.fill(ctx)
		}
		var r result
		if err == nil {
			r, err = runFio(ctx, short, probe, s)
		}
		s.stop()
		if err != nil {
			failed = err
			continue
		}
		fmt.Fprintf(os.Stderr, "qemu-none with aio=%s: %.0f IOPS\n", aio, r.IOPS)
		if r.IOPS > bestIOPS {
			best, bestIOPS = aio, r.IOPS
		}
	}
	if best == "" {
		return failed
	}
	return startQemu(ctx, c, s, "--cache=none", "--aio="+best)
}

// startCawrm starts one site without a mirror.
func startCawrm(ctx context.Context, c config, s *server) error {
	return s.startSite(ctx, c, "")
}

// startMirrored starts a mirror, and a source that mirrors to it on loopback.
func startMirrored(ctx context.Context, c config, s *server) error {
	m, err := newSite(c, filepath.Join(s.dir, "mirror"))
	if err != nil {
		return err
	}
	s.mirror = m
	if m.Peer, err = site.FreeAddr(); err != nil {
		return err
	}
	if err := m.CreateMirror(); err != nil {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	return s.startSite(ctx, c, m.Peer)
}

func (s *server) startSite(ctx context.Context, c config, peer string) error {
	x, err := newSite(c, filepath.Join(s.dir, "source"))
	if err != nil {
		return err
	}
	s.source, x.NBD = x, s.addr
	x.Control = "unix:" + filepath.Join(filepath.Dir(s.socket()), "control.sock")
	if peer != "" {
		x.Mirrors = []string{site.MirrorURL(peer, x.Name)}
	}
	s.export, s.uri = x.Name, x.URI()
	s.command = strings.Join(append([]string{"cawrm"}, x.Args()...), " ")
	if out, err := x.Run("version"); err == nil {
		s.version = strings.TrimSpace(out)
	}
	if err := x.Create(c.size); err != nil {
		return err
	}
	return x.Start(ctx)
}

func newSite(c config, dir string) (*site.Site, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return nil, err
	}
	return site.New(bin, dir, "bench")
}

// stop ends the server and waits until it is gone.
func (s *server) stop() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
		os.Remove(s.socket())
	}
	for _, x := range []*site.Site{s.source, s.mirror} {
		if x != nil {
			x.Kill()
		}
	}
}

// stopAll ends all servers and removes their files.
func stopAll(running []*server) {
	for _, s := range running {
		s.stop()
		os.RemoveAll(s.dir)
		os.RemoveAll(filepath.Dir(s.socket()))
	}
}

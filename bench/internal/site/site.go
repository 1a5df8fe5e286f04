package site

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cawrm/bench/internal/nbdclient"
)

// Site is one daemon and its container. Set the exported fields before Start.
type Site struct {
	Bin     string   // path of the cawrm binary
	Name    string   // of the volume and of its NBD export
	Path    string   // of the container
	NBD     string   // where the daemon serves NBD: host:port or unix:/path
	Peer    string   // where it listens for sources; empty: it does not
	Mirrors []string // URLs it mirrors to
	Extra   []string // further arguments of serve
	Control string   // unix:/path of the control socket

	log  *tail
	proc *process
}

// New lays out a site called name in dir, which must exist. NBD and peer get
// free ports of 127.0.0.1; Peer is set by callers that want it.
func New(bin, dir, name string) (*Site, error) {
	nbd, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	return &Site{
		Bin:     bin,
		Name:    name,
		Path:    filepath.Join(dir, name+".cawrm"),
		NBD:     nbd,
		Control: "unix:" + filepath.Join(dir, "control.sock"),
		log:     &tail{},
	}, nil
}

// FreeAddr returns an address of 127.0.0.1 that nothing listens on just now.
func FreeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// MirrorURL is the URL by which a source reaches the volume of that name
// through addr.
func MirrorURL(addr, name string) string { return "cawrm://" + addr + "/" + name }

// URI is the NBD URI of the site's export, for other programs.
func (s *Site) URI() string {
	if path, ok := strings.CutPrefix(s.NBD, "unix:"); ok {
		return "nbd+unix:///" + s.Name + "?socket=" + path
	}
	return "nbd://" + s.NBD + "/" + s.Name
}

// Create makes the container of a volume of that size ("1G").
func (s *Site) Create(size string) error {
	_, err := s.Run("create", s.Path, "--size", size)
	return err
}

// CreateMirror makes the container of an empty mirror.
func (s *Site) CreateMirror() error {
	_, err := s.Run("create", s.Path, "--mirror")
	return err
}

// Check runs the offline checker on the container, which must be closed.
func (s *Site) Check() error {
	_, err := s.Run("check", s.Path)
	return err
}

// Run runs the binary with args and returns what it printed. An exit code
// other than 0 is an error that holds the output.
func (s *Site) Run(args ...string) (string, error) {
	return Run(context.Background(), s.Bin, args...)
}

// Run runs a program and returns its output, which an error holds too.
func Run(ctx context.Context, bin string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, bin, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(bin), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Args are the arguments with which Start runs the binary.
func (s *Site) Args() []string {
	args := []string{"serve", s.Path, "--name", s.Name, "--nbd", s.NBD, "--control", s.Control}
	if s.Peer != "" {
		args = append(args, "--peer", s.Peer)
	}
	for _, m := range s.Mirrors {
		args = append(args, "--mirror", m)
	}
	return append(args, s.Extra...)
}

// Start runs the daemon and waits until it answers `cawrm status` and its NBD
// address takes connections.
func (s *Site) Start(ctx context.Context) error {
	p, err := startProcess(s.log, s.Bin, s.Args()...)
	if err != nil {
		return err
	}
	s.proc = p
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.poll(ctx, "to be ready", func() (bool, error) {
		if _, err := s.Status(ctx); err != nil {
			return false, err
		}
		return s.listens(), nil
	})
}

// listens says whether something takes connections at the NBD address.
func (s *Site) listens() bool {
	network, addr := "tcp", s.NBD
	if path, ok := strings.CutPrefix(s.NBD, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Kill ends the daemon with SIGKILL, if it runs, and waits until it is gone.
func (s *Site) Kill() {
	if s.proc != nil {
		s.proc.signal(syscall.SIGKILL)
		<-s.proc.done
		s.proc = nil
	}
}

// Stop ends the daemon with SIGTERM. It is an error if it does not end
// cleanly, with exit code 0, within a minute.
func (s *Site) Stop() error {
	if s.proc == nil {
		return nil
	}
	p := s.proc
	s.proc = nil
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.signal(syscall.SIGQUIT) // the goroutines of a hung daemon go to its log
		<-p.done
		return fmt.Errorf("the daemon of %s did not stop within a minute of SIGTERM\n%s", s.Path, s.Log())
	}
	if p.err != nil {
		return fmt.Errorf("the daemon of %s ended with %w\n%s", s.Path, p.err, s.Log())
	}
	return nil
}

// Running says whether the daemon was started and has not ended.
func (s *Site) Running() bool {
	return s.proc != nil && !s.proc.ended()
}

// Log returns the last of what the daemon wrote, over all its starts.
func (s *Site) Log() string { return s.log.String() }

// PID is the daemon's process id, 0 when it does not run.
func (s *Site) PID() int {
	if s.proc == nil {
		return 0
	}
	return s.proc.cmd.Process.Pid
}

// Status asks the daemon by `cawrm status --json`.
func (s *Site) Status(ctx context.Context) (Volume, error) {
	cmd := exec.CommandContext(ctx, s.Bin, "status", s.Name, "--control", s.Control, "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return Volume{}, fmt.Errorf("cawrm status: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var st struct {
		Process Process
		Volumes []Volume
	}
	if err := json.Unmarshal(out, &st); err != nil {
		return Volume{}, fmt.Errorf("cawrm status --json: %w in %s", err, out)
	}
	for _, v := range st.Volumes {
		if v.Name == s.Name {
			v.Process = st.Process
			return v, nil
		}
	}
	return Volume{}, fmt.Errorf("cawrm status --json does not list %q: %s", s.Name, out)
}

// Wait polls the status until ok says so. It fails with ctx or when the
// daemon ends, and then says the last status.
func (s *Site) Wait(ctx context.Context, what string, ok func(Volume) bool) error {
	return s.poll(ctx, what, func() (bool, error) {
		v, err := s.Status(ctx)
		if err != nil {
			return false, err
		}
		if ok(v) {
			return true, nil
		}
		return false, fmt.Errorf("it is at %+v", v)
	})
}

// WaitSynced waits until every mirror holds all of the volume.
func (s *Site) WaitSynced(ctx context.Context) error {
	return s.Wait(ctx, "to be synced", Volume.Synced)
}

func (s *Site) poll(ctx context.Context, what string, ok func() (bool, error)) error {
	var last error
	for {
		done, err := ok()
		if done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if !s.Running() {
			return fmt.Errorf("waited for the site of %s %s, but its daemon is not running: %v\n%s", s.Path, what, last, s.Log())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for the site of %s %s: %w; last: %v\n%s", s.Path, what, ctx.Err(), last, s.Log())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// Dial opens an NBD connection to the site's export.
func (s *Site) Dial(ctx context.Context) (*nbdclient.Client, error) {
	return nbdclient.Dial(ctx, s.NBD, s.Name)
}

// Remove deletes the container.
func (s *Site) Remove() error { return os.Remove(s.Path) }

package peers

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

// system is one that mirrors a volume.
type system interface {
	// start serves the volume without a mirror, and the mirror's site.
	start(ctx context.Context) error
	// source and target are the NBD servers of the two sites; the target is read past the line.
	source() (addr, export string)
	target() (addr, export string)
	// listens is the address of the mirror's site that the line leads to.
	listens() string
	// mirror begins to mirror through addr.
	mirror(ctx context.Context, addr string) error
	synced(ctx context.Context) (bool, error)
	stop()
}

// known lists the systems and the programs that they need.
var known = []struct {
	name  string
	needs []string
	make  func(c place) system
}{
	{"cawrm", nil, func(c place) system { return &ours{place: c} }},
	{"qemu background", []string{"qemu-storage-daemon", "nbdkit"}, func(c place) system { return &qemu{place: c, mode: "background"} }},
	{"qemu write-blocking", []string{"qemu-storage-daemon", "nbdkit"}, func(c place) system { return &qemu{place: c, mode: "write-blocking"} }},
	{"nbdcopy", []string{"nbdcopy", "nbdkit"}, func(c place) system { return &copier{place: c} }},
}

// Names lists the systems.
func Names() (names []string) {
	for _, k := range known {
		names = append(names, k.name)
	}
	for _, r := range residents {
		names = append(names, r.name)
	}
	return names
}

// Missing returns the programs that a system needs and this machine lacks.
func Missing(name string) (absent []string) {
	for _, k := range known {
		for _, p := range k.needs {
			if _, err := exec.LookPath(p); k.name == name && err != nil {
				absent = append(absent, p)
			}
		}
	}
	return absent
}

// place is where a system is set up.
type place struct {
	dir  string // of its files
	bin  string // cawrm
	size int64
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

// image makes a sparse file of the volume's size.
func (p place) image(name string) (string, error) {
	path := p.path(name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return "", err
	}
	return path, os.Truncate(path, p.size)
}

// program is a foreign program that runs until it is killed.
type program struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func run(args ...string) (*program, error) {
	p := &program{cmd: exec.Command(args[0], args[1:]...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.cmd.Start()
}

func (p *program) kill() {
	if p != nil && p.cmd.Process != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// await waits until something answers NBD there.
func (p *program) await(ctx context.Context, addr, export string) error {
	var last error
	for range 250 {
		c, err := nbdclient.Dial(ctx, addr, export)
		if err == nil {
			return c.Close()
		}
		last = err
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s does not answer: %w\n%s", p.cmd.Args[0], last, p.log.String())
}

// nbdkit serves a file on a port of this machine.
func nbdkit(ctx context.Context, path string) (p *program, addr string, err error) {
	if addr, err = site.FreeAddr(); err != nil {
		return nil, "", err
	}
	host, port, _ := strings.Cut(addr, ":")
	if p, err = run("nbdkit", "-f", "-i", host, "-p", port, "file", path); err != nil {
		return nil, "", err
	}
	return p, addr, p.await(ctx, addr, "")
}

// ours is cawrm, as two daemons.
type ours struct {
	place
	a, b *site.Site
}

func (o *ours) start(ctx context.Context) error {
	var err error
	for _, x := range []struct {
		name string
		to   **site.Site
	}{{"a", &o.a}, {"b", &o.b}} {
		dir := o.path(x.name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if *x.to, err = site.New(o.bin, dir, "v"); err != nil {
			return err
		}
	}
	o.a.NBD = "unix:" + o.path("a.sock")
	if o.b.Peer, err = site.FreeAddr(); err != nil {
		return err
	}
	return errors.Join(o.a.Create(fmt.Sprint(o.size)), o.b.CreateMirror(), o.b.Start(ctx), o.a.Start(ctx))
}

func (o *ours) source() (string, string) { return o.a.NBD, "v" }
func (o *ours) target() (string, string) { return o.b.NBD, "v" }
func (o *ours) listens() string          { return o.b.Peer }

func (o *ours) mirror(ctx context.Context, addr string) error {
	_, err := o.a.Run("mirror", "add", "v", "b", site.MirrorURL(addr, "v"), "--control", o.a.Control)
	return err
}

func (o *ours) synced(ctx context.Context) (bool, error) {
	v, err := o.a.Status(ctx)
	return v.Synced(), err
}

func (o *ours) stop() {
	for _, x := range []*site.Site{o.a, o.b} {
		if x != nil {
			x.Kill()
		}
	}
}

// copier is nbdcopy, which copies once.
type copier struct {
	place
	from, to         *program
	fromAddr, toAddr string
	copying          *program
	ended            chan error
}

func (k *copier) start(ctx context.Context) error {
	for _, x := range []struct {
		name string
		p    **program
		addr *string
	}{{"source", &k.from, &k.fromAddr}, {"target", &k.to, &k.toAddr}} {
		path, err := k.image(x.name)
		if err != nil {
			return err
		}
		if *x.p, *x.addr, err = nbdkit(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

func (k *copier) source() (string, string) { return k.fromAddr, "" }
func (k *copier) target() (string, string) { return k.toAddr, "" }
func (k *copier) listens() string          { return k.toAddr }

func (k *copier) mirror(_ context.Context, addr string) (err error) {
	k.copying, err = run("nbdcopy", "--flush", "nbd://"+k.fromAddr, "nbd://"+addr)
	k.ended = make(chan error, 1)
	if err == nil {
		go func() { k.ended <- k.copying.cmd.Wait() }()
	}
	return err
}

func (k *copier) synced(context.Context) (bool, error) {
	select {
	case err := <-k.ended:
		if err != nil {
			return false, fmt.Errorf("nbdcopy: %w\n%s", err, k.copying.log.String())
		}
		k.copying = nil
		return true, nil
	default:
		return false, nil
	}
}

func (k *copier) stop() {
	if k.copying != nil {
		k.copying.cmd.Process.Kill()
	}
	k.from.kill()
	k.to.kill()
}

package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cawrm/bench/lab"
	"cawrm/bench/report"
	"cawrm/wan"
)

// booting are the programs of the host that boot a virtual machine, and those that every one gets a copy of.
var booting = []string{"qemu-system-x86_64", "busybox", "cpio", "depmod", "dpkg", "apt-get", "flock", "ip", "nbd-client", "mkfs.ext4", "e2fsck", "blkdiscard", "fstrim"}

// packages are Debian's for programs that a host seldom has. They are unpacked beside the machine's kernel, not installed.
var packages = map[string]string{"drbdsetup-84": "drbd-utils", "drbdmeta": "drbd-utils", "mdadm": "mdadm"}

// cache is where vm.sh keeps the kernel.
func cache() (string, error) {
	if dir := os.Getenv("CAWRM_LAB_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "cawrm-lab"), err
}

// guests boots virtual machines.
type guests struct {
	*bench
	there []tenant // that are measured
	dir   string   // of the scripts
	path  string   // PATH, with unpacked packages
}

func isTenant(name string) bool {
	return slices.ContainsFunc(residents, func(r tenant) bool { return r.name == name })
}

// tenants finds those of the names that are measured in a virtual machine and can be.
func (b *bench) tenants(ctx context.Context, names []string) (*guests, error) {
	g := &guests{bench: b}
	if !slices.ContainsFunc(names, isTenant) {
		return g, nil
	}
	if err := g.prepare(); err != nil {
		return nil, err
	}
	for _, r := range residents {
		if !slices.Contains(names, r.name) {
			continue
		}
		if absent := g.missing(ctx, r); len(absent) > 0 {
			b.Skipped(fmt.Sprintf("%s needs %s for its virtual machine (Debian: qemu-system-x86 busybox-static cpio kmod iproute2 nbd-client nbdkit drbd-utils mdadm)",
				r.name, strings.Join(absent, ", ")))
			continue
		}
		g.there = append(g.there, r)
	}
	return g, nil
}

// prepare lays out the scripts, and where programs are looked for.
func (g *guests) prepare() error {
	root, err := cache()
	if err != nil {
		return err
	}
	g.dir, g.path = filepath.Join(g.Dir, "machine"), os.Getenv("PATH")+":/usr/sbin:/sbin"
	for _, name := range []string{"sbin", "usr/sbin", "lib/drbd", "usr/lib/drbd"} {
		for _, p := range []string{"drbd-utils", "mdadm"} {
			g.path += ":" + filepath.Join(root, "packages", p, name)
		}
	}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return err
	}
	script := "#!/bin/bash\nmkdir -p /run/lock /run/drbd /var/run /var/lib/drbd /var/lock\nexec cawrm bench inside \"$1\"\n"
	return errors.Join(os.CopyFS(g.dir, lab.Scripts), os.WriteFile(filepath.Join(g.dir, "inside.sh"), []byte(script), 0o700),
		os.Chmod(filepath.Join(g.dir, "vm.sh"), 0o700))
}

// find looks a program up where the virtual machine's programs are looked for.
func (g *guests) find(name string) (string, bool) {
	for _, dir := range filepath.SplitList(g.path) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// missing returns what a tenant needs and cannot be had here. What is only a package away is fetched.
func (g *guests) missing(ctx context.Context, r tenant) (absent []string) {
	for _, p := range append(append([]string{}, booting...), r.programs...) {
		if _, ok := g.find(p); ok {
			continue
		}
		if name := packages[p]; name == "" || g.unpack(ctx, name) != nil {
			absent = append(absent, p)
		} else if _, ok := g.find(p); !ok {
			absent = append(absent, p)
		}
	}
	return absent
}

// unpack fetches one of Debian's packages into the cache.
func (g *guests) unpack(ctx context.Context, name string) error {
	root, err := cache()
	if err != nil {
		return err
	}
	to := filepath.Join(root, "packages", name)
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g.Progress("fetching the package " + name)
	dir := filepath.Join(g.dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w\n%s", name, err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages: %v", name, len(found), err)
	}
	part := to + ".part"
	if _, err := output(ctx, "dpkg", "-x", found[0], part); err != nil {
		return err
	}
	return os.Rename(part, to)
}

// under measures them on one line, in turns, each time in a new machine.
func (g *guests) under(ctx context.Context, p wan.Profile) error {
	e := &report.Experiment{
		Name: "peers/vm-" + p.Name, Title: "Mirroring over " + p.Name + ", in a virtual machine", Time: time.Now().UTC().Truncate(time.Second),
		Commit: report.Commit(g.Version), Machine: report.ThisMachine(g.Dir), Command: g.Command, Load: report.LoadAverage(),
		X: "what", Unit: "as said", Mixed: true, Link: p.String(), LinkMode: string(wan.Netem),
	}
	var failed error
	for round := range g.Rounds {
		for _, r := range g.there {
			if err := ctx.Err(); err != nil {
				return err
			}
			turn := fmt.Sprintf("%s over %s, round %d of %d", r.name, p.Name, round+1, g.Rounds)
			g.Progress(turn)
			if err := g.one(ctx, r, p, e, turn); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				g.Skipped(fmt.Sprintf("%s: %v", turn, err))
				if !errors.As(err, new(lacks)) {
					failed = err
				}
			}
		}
	}
	if len(e.Points) == 0 {
		return failed // one that succeeds is enough
	}
	g.list = append(g.list, e)
	return nil
}

// lacks is what the machine's kernel has not.
type lacks string

func (l lacks) Error() string { return "it lacks " + string(l) }

// order is what a machine is told.
func (g *guests) order(name string, p wan.Profile) Order {
	o := Order{System: name, Line: p, Seconds: g.Seconds, Moments: moments, Writes: 512}
	if g.Quick {
		o.Moments = 2
	}
	return o
}

// one boots a machine and takes what it measures, if it comes to its end.
func (g *guests) one(ctx context.Context, r tenant, p wan.Profile, e *report.Experiment, turn string) error {
	o := g.order(r.name, p)
	order, err := json.Marshal(o)
	if err != nil {
		return err
	}
	args := []string{"--run", filepath.Join(g.dir, "inside.sh"), "--add", g.Bin + ":bin/cawrm", "--bin", "ip", "--mem", "2048", "--timeout", "900"}
	for _, mod := range []string{"brd", "veth", "sch_netem", "tcp_bbr", "nbd", "drbd", "raid1"} {
		args = append(args, "--mod", mod)
	}
	for _, t := range residents { // one set of programs for all, so that one image is built
		for _, name := range t.programs {
			if path, ok := g.find(name); ok {
				args = append(args, "--bin", filepath.Base(path))
			}
		}
	}
	if path, ok := g.find("nbdkit"); ok {
		plugin, err := nbdkitPlugin(ctx, path)
		if err != nil {
			return err
		}
		args = append(args, "--add", plugin+":"+strings.TrimPrefix(plugin, "/"))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(g.dir, "vm.sh"), append(args, "--", string(order))...)
	cmd.Env = append(os.Environ(), "PATH="+g.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // the script ends its machine
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return err
	}
	lines, others := gather(out, func(doing string) { g.Progress(turn + ": " + doing) })
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s%s", err, others, complaints.String())
	}
	return take(e, r.name, o, lines)
}

// nbdkitPlugin finds the plugin that serves a file.
func nbdkitPlugin(ctx context.Context, nbdkit string) (string, error) {
	text, err := output(ctx, nbdkit, "--dump-config")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "plugindir="); ok {
			return filepath.Join(dir, "nbdkit-file-plugin.so"), nil
		}
	}
	return "", errors.New("nbdkit --dump-config names no plugindir")
}

// gather reads a machine's lines until it ends; what is none is kept as it is.
func gather(r io.Reader, doing func(string)) (lines []Line, others string) {
	var b strings.Builder
	for s := bufio.NewScanner(r); s.Scan(); {
		var l Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil || l == (Line{}) {
			b.WriteString(s.Text() + "\n")
			continue
		}
		if l.Doing != "" {
			doing(l.Doing)
		}
		lines = append(lines, l)
	}
	return lines, b.String()
}

// take adds what a machine measured. A name without a result is a machine that did not measure.
func take(e *report.Experiment, name string, o Order, lines []Line) error {
	n := 0
	for _, l := range lines {
		if l.Lacks != "" {
			return lacks(l.Lacks)
		}
		if l.What != "" {
			e.Add(strings.TrimSuffix(name, " (vm)"), l.What, 0, l.Value)
			n++
		}
		if l.Congestion != "" {
			e.Congestion = l.Congestion
		}
		if l.Kernel != "" {
			e.Note = fmt.Sprintf("everything in one emulated machine (qemu TCG, no KVM) with Linux %s; writer: 4 KiB random writes at depth %d over 8 MiB for %s; "+
				"volume of 64 MiB on disks of memory; the outage lasts %s and nobody is told; a resumption brings %d writes that were made while the mirror "+
				"was out of service; bytes are those of the packets, with their headers", l.Kernel, depth, o.Seconds, o.Seconds, o.Writes)
		}
	}
	if n == 0 {
		return errors.New("the machine measured nothing")
	}
	return nil
}

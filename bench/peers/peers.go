package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cawrm/bench/report"
	"cawrm/wan"
)

// Title is that of the report.
const Title = "CAWRM beside other systems"

// Caveats are what to know before the numbers are used.
func Caveats() []string {
	return []string{
		"The client, both sites and the line share this machine's processors and disk.",
		"Outside of the virtual machine the line is a relay between the sites: delay and rate are the profile's, loss is not.",
		"qemu's mirror runs in a storage daemon over a raw file with a write-back cache, its target is nbdkit over a file.",
		"DRBD and md run in a virtual machine whose processors are emulated (qemu TCG, no KVM), with cawrm beside them in the same one. Programs suffer " +
			"from that more than the kernel does: there rates say what a mirror takes away, not how fast a system is. Times of the line, bytes and states can be compared.",
		"DRBD's synchronisation is told the line's rate; md's bitmap has chunks of 1 MiB; cawrm does not compress, as they do not.",
	}
}

// Config says how to measure.
type Config struct {
	Dir      string
	Bin      string // cawrm
	Only     []string
	Profiles []string
	Rounds   int
	Quick    bool          // few moments
	Seconds  time.Duration // of a writer's turn
	Version  string
	Command  []string
	Progress func(string)
	Skipped  func(text string) // a system that cannot be measured here, and why
}

const (
	volumeSize = 64 << 20
	areaChunks = 2048 // 8 MiB that are written to
	depth      = 16
	pace       = 200 // writes a second of the paced writer
	moments    = 5   // at which the target is looked at
)

// bench is one run.
type bench struct {
	Config
	list []*report.Experiment
}

// Run measures the systems in turns.
func Run(ctx context.Context, c Config) ([]*report.Experiment, error) {
	dir, err := os.MkdirTemp(c.Dir, "cawrm-peers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c.Dir = dir
	names := c.Only
	if len(names) == 0 {
		names = Names()
	}
	b := &bench{Config: c}
	tenants, err := b.tenants(ctx, names)
	if err != nil {
		return nil, err
	}
	var there []string
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no system %q, there are %s", name, strings.Join(Names(), ", "))
		}
		if isTenant(name) {
			continue
		}
		if absent := Missing(name); len(absent) > 0 {
			c.Skipped(fmt.Sprintf("%s needs %s (Debian: qemu-utils qemu-system-common nbdkit libnbd-bin)", name, strings.Join(absent, ", ")))
			continue
		}
		there = append(there, name)
	}
	for _, name := range c.Profiles {
		p, err := wan.Find(name)
		if err != nil {
			return nil, err
		}
		if len(there) > 0 {
			if err := b.under(ctx, p, there); err != nil {
				return b.list, err
			}
		}
		if len(tenants.there) > 0 {
			if err := tenants.under(ctx, p); err != nil {
				return b.list, err
			}
		}
	}
	return b.list, ctx.Err()
}

// under measures all systems on one line, in turns.
func (b *bench) under(ctx context.Context, p wan.Profile, names []string) error {
	e := &report.Experiment{
		Name: "peers/" + p.Name, Title: "Mirroring over " + p.Name, Time: time.Now().UTC().Truncate(time.Second),
		Commit: report.Commit(b.Version), Machine: report.ThisMachine(b.Dir), Command: b.Command, Load: report.LoadAverage(),
		X: "what", Unit: "as said", Mixed: true, Link: p.String(), LinkMode: string(wan.Relay),
		Note: fmt.Sprintf("writer: 4 KiB random writes at depth %d over 8 MiB for %s; volume of 64 MiB; the outage lasts %s",
			depth, b.Seconds, b.Seconds),
	}
	b.list = append(b.list, e)
	for round := range b.Rounds {
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			b.Progress(fmt.Sprintf("%s over %s, round %d of %d", name, p.Name, round+1, b.Rounds))
			limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
			err := b.one(limit, name, p, e)
			cancel()
			if err != nil {
				return fmt.Errorf("%s over %s: %w", name, p.Name, err)
			}
		}
	}
	return nil
}

// trial is one system, once.
type trial struct {
	*bench
	name string
	s    system
	l    *wan.Link
	c    *client
	e    *report.Experiment
}

// one goes through all with one system.
func (b *bench) one(ctx context.Context, name string, p wan.Profile, e *report.Experiment) error {
	dir, err := os.MkdirTemp("", "peers") // for the sockets: a path in there is short enough
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := filepath.Join(b.Dir, "files")
	if err := errors.Join(os.RemoveAll(files), os.MkdirAll(files, 0o700)); err != nil {
		return err
	}
	t := &trial{bench: b, name: name, e: e}
	for _, k := range known {
		if k.name == name {
			t.s = k.make(place{dir: files, bin: b.Bin, size: volumeSize})
		}
	}
	defer t.s.stop()
	if err := t.s.start(ctx); err != nil {
		return err
	}
	if t.l, err = wan.Listen(ctx, "127.0.0.1:0", t.s.listens(), p); err != nil {
		return err
	}
	defer t.l.Close()
	e.Congestion = t.l.Congestion()
	if t.c, err = dial(ctx, t.s, areaChunks); err != nil {
		return err
	}
	defer t.c.c.Close()
	if err := t.c.fill(volumeSize); err != nil {
		return err
	}
	alone, err := t.writer("without a mirror")
	if err != nil {
		return err
	}
	if err := t.c.c.Flush(); err != nil {
		return err
	}
	if err := t.initial(ctx); err != nil || name == "nbdcopy" {
		return err
	}
	with, err := t.writer("with a mirror")
	if err != nil {
		return err
	}
	t.add("writer's rate with over without a mirror", with/alone)
	start := time.Now()
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.add("lag behind that writer when it stops, s", time.Since(start).Seconds())
	if err := t.resume(ctx); err != nil {
		return err
	}
	return t.usable(ctx)
}

func (t *trial) add(what string, v float64) { t.e.Add(t.name, what, 0, v) }

func (t *trial) writer(when string) (float64, error) {
	iops, h, err := t.c.closed(depth, t.Seconds)
	if err != nil {
		return 0, err
	}
	t.add("writer "+when+", IOPS", iops)
	for _, q := range []float64{50, 99, 99.9} {
		t.add(fmt.Sprintf("writer %s, p%g us", when, q), float64(h.ValueAtQuantile(q))/1e3)
	}
	return iops, nil
}

// initial is the first synchronisation.
func (t *trial) initial(ctx context.Context) error {
	start := time.Now()
	if err := t.s.mirror(ctx, t.l.Addr()); err != nil {
		return err
	}
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.add("initial synchronisation, s", time.Since(start).Seconds())
	t.add("initial synchronisation, MB on the line", float64(t.l.Counters().TakenTo)/1e6)
	return nil
}

// wait waits until the mirror has everything.
func (t *trial) wait(ctx context.Context) error { return await(ctx, 10*time.Millisecond, t.s.synced) }

// await asks every so often until it is so.
func await(ctx context.Context, every time.Duration, so func(context.Context) (bool, error)) error {
	for {
		done, err := so(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for the mirror: %w", ctx.Err())
		case <-time.After(every):
		}
	}
}

// resume is an outage with a slow writer.
func (t *trial) resume(ctx context.Context) error {
	first := len(t.c.history)
	t.l.Cut()
	writing, stop := context.WithTimeout(ctx, t.Seconds)
	defer stop()
	var longest time.Duration
	ended := make(chan error, 1)
	go func() {
		h, err := t.c.paced(writing, pace)
		longest = time.Duration(h.Max())
		ended <- err
	}()
	<-writing.Done()
	sent := t.l.Counters().TakenTo
	start := time.Now()
	t.l.Heal() // now, though the writer may still wait for the line
	if err := <-ended; err != nil {
		return err
	}
	dirty := map[int64]bool{}
	for _, at := range t.c.history[first:] {
		dirty[at] = true
	}
	time.Sleep(20 * time.Millisecond) // a job that has not noticed the outage is not through it
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.add("outage: longest wait of a writer, ms", float64(longest)/1e6)
	t.add("resume: s until the mirror has everything", time.Since(start).Seconds())
	t.add("resume: bytes on the line over unique dirty bytes", float64(t.l.Counters().TakenTo-sent)/float64(chunk*len(dirty)))
	return nil
}

// usable looks at the target at moments at which the mirror is behind.
func (t *trial) usable(ctx context.Context) error {
	good := 0
	for range moments {
		if err := t.wait(ctx); err != nil {
			return err
		}
		since, err := t.c.rest(ctx, t.s)
		if err != nil {
			return err
		}
		if _, _, err := t.c.closed(1, t.Seconds/4); err != nil {
			return err
		}
		t.l.Cut()
		time.Sleep(100 * time.Millisecond) // what had arrived is written
		ok, err := t.c.prefix(ctx, t.s, since)
		if err != nil {
			return err
		}
		if ok {
			good++
		}
		t.l.Heal()
	}
	t.add("moments of catching up at which the target was a state of the source, share", float64(good)/moments)
	return t.wait(ctx)
}

package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"cawrm/wan"
)

// Order is what one virtual machine is to measure: one system on one line, once.
type Order struct {
	System  string
	Line    wan.Profile
	Seconds time.Duration // of a writer's turn, and of the outage
	Moments int           // at which the target is looked at
	Writes  int           // that a resumption has to bring
}

// Line is one that the machine prints: a result, or what it does now. Anything else that it prints is somebody's complaint.
type Line struct {
	What       string  `json:"what,omitempty"`
	Value      float64 `json:"value"`
	Doing      string  `json:"doing,omitempty"`
	Congestion string  `json:"congestion,omitempty"`
	Kernel     string  `json:"kernel,omitempty"`
	Lacks      string  `json:"lacks,omitempty"` // a module of the kernel, without which nothing was measured
}

// Inside measures in the virtual machine and prints lines to w. It takes the machine over: its disks, addresses and routes.
func Inside(ctx context.Context, w io.Writer, order []byte) error {
	var o Order
	if err := json.Unmarshal(order, &o); err != nil {
		return fmt.Errorf("the order: %w", err)
	}
	i := slices.IndexFunc(residents, func(r tenant) bool { return r.name == o.System })
	if i < 0 {
		return fmt.Errorf("there is no system %q", o.System)
	}
	out := json.NewEncoder(w)
	for _, m := range append([]string{"brd", "veth", "sch_netem"}, residents[i].modules...) {
		if _, err := command(ctx, "modprobe -q -n "+m); err != nil {
			return out.Encode(Line{Lacks: "the kernel's module " + m})
		}
	}
	t := &stay{Order: o, out: out, s: residents[i].make(o.Line), rng: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))}
	if err := disks(ctx, residents[i].disk); err != nil {
		return err
	}
	var err error
	if t.wire, err = lay(ctx, o.Line); err != nil {
		return err
	}
	congestion, err := wan.Congestion("")
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	t.out.Encode(Line{Congestion: congestion, Kernel: strings.TrimSpace(string(release))})
	return t.run(ctx)
}

// stay is one system in one machine.
type stay struct {
	Order
	s    resident
	c    *client
	wire *wire
	out  *json.Encoder
	rng  *rand.Rand
}

func (t *stay) add(what string, v float64) { t.out.Encode(Line{What: what, Value: v}) }
func (t *stay) doing(what string)          { t.out.Encode(Line{Doing: what}) }

// run goes through all, in the order of package peers.
func (t *stay) run(ctx context.Context) error {
	t.doing("line")
	rate, err := t.wire.plain(t.Seconds)
	if err != nil {
		return err
	}
	t.add("a plain TCP connection over the line, MB/s", rate/1e6)
	t.doing("bare disk")
	bare, err := t.bare()
	if err != nil {
		return err
	}
	t.doing("writer without a mirror")
	if err := t.s.start(ctx); err != nil {
		return err
	}
	if err := t.reopen(); err != nil {
		return err
	}
	if err := t.c.fill(volumeSize); err != nil {
		return err
	}
	if err := t.calm(ctx, "without a mirror", t.Seconds); err != nil {
		return err
	}
	alone, err := t.writer("without a mirror", t.Seconds)
	if err != nil {
		return err
	}
	if err := t.c.c.Flush(); err != nil {
		return err
	}
	t.doing("initial synchronisation")
	if err := t.initial(ctx); err != nil {
		return err
	}
	t.doing("writer with a mirror")
	with, err := t.scripted(ctx, func() (float64, error) {
		long := max(t.Seconds, t.Line.Repeat) // the script goes round once
		if err := t.calm(ctx, "with a mirror", long); err != nil {
			return 0, err
		}
		return t.writer("with a mirror", long)
	})
	if err != nil {
		return err
	}
	t.add("writer's rate with over without a mirror", with/alone)
	t.add("writer's rate with a mirror over that of the bare disk", with/bare)
	start := time.Now()
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.add("lag behind that writer when it stops, s", time.Since(start).Seconds())
	t.doing("outage")
	if err := t.outage(ctx); err != nil {
		return err
	}
	t.doing("resumption")
	if err := t.resume(ctx); err != nil {
		return err
	}
	return t.usable(ctx)
}

// reopen opens the volume, which some systems have elsewhere once there is a mirror.
func (t *stay) reopen() error {
	v, err := t.s.open()
	if err != nil {
		return err
	}
	if t.c == nil {
		t.c = newClient(v, areaChunks)
	}
	t.c.c = v
	return nil
}

// bare is the writer's rate on the near disk itself.
func (t *stay) bare() (float64, error) {
	d, err := openDevice(nearDisk, 0)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	c := newClient(d, areaChunks)
	iops, h, err := c.closed(depth, t.Seconds)
	if err != nil {
		return 0, err
	}
	t.add("writer on the bare disk, IOPS", iops)
	t.latencies("writer on the bare disk", h)
	return iops, nil
}

func (t *stay) writer(when string, long time.Duration) (float64, error) {
	iops, h, err := t.c.closed(depth, long)
	if err != nil {
		return 0, err
	}
	t.add("writer "+when+", IOPS", iops)
	t.latencies("writer "+when, h)
	return iops, nil
}

// calm is the latency of a writer that does not ask for much.
func (t *stay) calm(ctx context.Context, when string, long time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, long)
	defer stop()
	h, err := t.c.paced(ctx, pace)
	if err == nil {
		t.latencies(fmt.Sprintf("writer of %d a second %s", pace, when), h)
	}
	return err
}

func (t *stay) latencies(who string, h *hdrhistogram.Histogram) {
	for _, q := range []float64{50, 99, 99.9} {
		t.add(fmt.Sprintf("%s, p%g us", who, q), float64(h.ValueAtQuantile(q))/1e3)
	}
}

// scripted does something while the profile's script, if it has one, plays.
func (t *stay) scripted(ctx context.Context, f func() (float64, error)) (float64, error) {
	playing, stop := context.WithCancel(ctx)
	played := make(chan error, 1)
	go func() { played <- t.wire.play(playing) }()
	v, err := f()
	stop()
	return v, errors.Join(err, <-played)
}

// initial is the first synchronisation.
func (t *stay) initial(ctx context.Context) error {
	t.c.c.Close() // some have the volume elsewhere from now on
	start, sent := time.Now(), t.wire.sent()
	if err := t.s.mirror(ctx); err != nil {
		return err
	}
	if err := await(ctx, 50*time.Millisecond, t.s.synced); err != nil {
		return err
	}
	t.add("initial synchronisation, s", time.Since(start).Seconds())
	t.add("initial synchronisation, MB on the line", float64(t.wire.sent()-sent)/1e6)
	if m, ok := t.s.(*mdraid); ok {
		if err := m.settle(ctx); err != nil {
			return err
		}
	}
	return t.reopen()
}

// wait waits until the far site has what the volume has, where it is written to: the same for all systems, whatever they say of
// themselves. The writer must rest.
func (t *stay) wait(ctx context.Context) error {
	want, err := t.numbers(t.s.open())
	if err != nil {
		return err
	}
	return await(ctx, 50*time.Millisecond, func(ctx context.Context) (bool, error) {
		held, err := t.numbers(t.s.look(ctx))
		return slices.Equal(want, held), err
	})
}

// numbers reads which writes a site shows. What was there before the client wrote has none.
func (t *stay) numbers(v volume, err error) ([]uint64, error) {
	if err != nil {
		return nil, err
	}
	defer v.Close()
	held, err := t.c.numbers(v)
	for i, n := range held {
		if n > uint64(len(t.c.history)) {
			held[i] = 0
		}
	}
	return held, err
}

// outage is a line that falls silent, with a slow writer. Nobody tells the system.
func (t *stay) outage(ctx context.Context) error {
	if err := t.wire.cut(); err != nil {
		return err
	}
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
	start := time.Now()
	if err := t.wire.heal(); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	if err := t.wait(ctx); err != nil {
		return err
	}
	t.add("outage: longest wait of a writer, ms", float64(longest)/1e6)
	t.add("outage: s until the mirror has everything", time.Since(start).Seconds())
	return nil
}

// behind takes the mirror out of service and writes, one write at a time. It returns the state before, and the chunks written.
func (t *stay) behind(ctx context.Context) (before state, dirty int, err error) {
	if err := await(ctx, 50*time.Millisecond, t.s.synced); err != nil {
		return state{}, 0, err
	}
	shown, err := t.numbers(t.s.open())
	if err != nil {
		return state{}, 0, err
	}
	before = state{shown, len(t.c.history)}
	if err := t.s.part(ctx); err != nil {
		return state{}, 0, err
	}
	p := make([]byte, chunk)
	seen := map[int64]bool{}
	for range t.Writes {
		off := t.c.next(p)
		if err := t.c.c.Write(off, p, 0); err != nil {
			return state{}, 0, err
		}
		seen[off] = true
	}
	return before, len(seen), t.c.c.Flush()
}

// resume takes a mirror in again.
func (t *stay) resume(ctx context.Context) error {
	_, dirty, err := t.behind(ctx)
	if err != nil {
		return err
	}
	start, sent := time.Now(), t.wire.sent()
	if err := t.s.join(ctx); err != nil {
		return err
	}
	if err := t.wait(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	if err := await(ctx, 50*time.Millisecond, t.s.synced); err != nil { // the bytes are all that it sends
		return err
	}
	t.add("resume: s until the mirror has everything", took.Seconds())
	t.add("resume: bytes on the line over unique dirty bytes", float64(t.wire.sent()-sent)/float64(chunk*dirty))
	return nil
}

// usable looks at what the far site has at moments of resumptions: when a random part of the missing bytes has gone over the line.
func (t *stay) usable(ctx context.Context) error {
	good, all := 0, 0
	for n := range t.Moments {
		t.doing(fmt.Sprintf("moment %d of %d", n+1, t.Moments))
		before, dirty, err := t.behind(ctx)
		if err != nil {
			return err
		}
		at := t.wire.sent() + int64((0.05+0.9*t.rng.Float64())*float64(chunk*dirty))
		if err := t.s.join(ctx); err != nil {
			return err
		}
		for t.wire.sent() < at && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if err := t.wire.cut(); err != nil {
			return err
		}
		time.Sleep(t.Line.Delay + t.Line.Jitter + 100*time.Millisecond) // what was under way has arrived
		held, err := t.numbers(t.s.look(ctx))
		if err != nil {
			return err
		}
		if !slices.Equal(held, t.c.after(before)) { // else it was not behind any more
			all++
			ok, err := t.c.once(before, held)
			if err != nil {
				return err
			}
			if ok {
				good++
			}
		}
		if err := t.wire.heal(); err != nil {
			return err
		}
		if err := t.wait(ctx); err != nil {
			return err
		}
	}
	if all > 0 {
		t.add("moments of catching up at which the target was a state of the source, share", float64(good)/float64(all))
	}
	return nil
}

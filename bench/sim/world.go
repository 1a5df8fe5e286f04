package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/sim/network"
)

// config is what a seed chooses once for a history.
type config struct {
	size            int64     // of the volume, when it is made
	windows         []window  // some of them lie where it may grow to
	sizes           []int64   // that it may grow to
	segment         [4]uint32 // chunks a segment, of each node
	limit           int64     // of each disk
	fixed           bool      // the disks are devices
	durable         time.Duration
	checkpointEvery time.Duration
	checkpointBytes int64
	mapMemory       int64
	window          int64
	keepAlive       time.Duration
	readTimeout     time.Duration
	settings        string // of mirrors, as in a URL
	steps           int
	history         aodi.HistoryWindow
	space           space
}

// world is one history under way.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	cfg     config
	net     *network.Network
	nodes   []*node // the first source, then its mirrors, then the mirror's mirror
	began   time.Time
	verbose bool
	out     io.Writer

	*reign                  // that is on
	reigns    []*reign      // all, in their order
	roles     bool          // they change
	vacant    bool          // the primary was demoted, and nobody is promoted yet
	heir      *node         // who may have become the primary, or may yet; nobody else is promoted
	asked     *node         // the heir, if it was promoted by hand: what the old primary comes up as says nothing of it
	heirEnd   aodi.Position // where it was handed over; 0: it was not
	disturbed bool          // nobody sleeps over a disk

	old      *disk.Memory  // a copy of the source's disk, from before it came up at oldEnd
	oldEnd   aodi.Position // 0: not known yet
	kept     bool          // the copy is of the boot that is under way
	guests   []func()      // what else must be stopped when a history ends early
	over     bool          // nobody can say any more what the disks should hold: the history ends
	said     []string
	doing    string
	instants []instant // what the source had at which times

	mu    sync.Mutex
	trace uint64
	tally *tally
}

func pick[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }

// choose makes a config from the seed.
func choose(rng *rand.Rand) config {
	c := config{limit: 64 << 20, steps: 60 + rng.IntN(120),
		durable:         pick(rng, 5*time.Millisecond, 50*time.Millisecond, 300*time.Millisecond, time.Hour),
		checkpointEvery: pick(rng, 100*time.Millisecond, time.Second, 30*time.Second, time.Hour),
		checkpointBytes: pick[int64](rng, 64<<10, 256<<10, 1<<20, 1<<30),
		mapMemory:       pick[int64](rng, 64<<10, 256<<10, 128<<20),
		window:          1 << (10 + rng.IntN(12)),
		keepAlive:       pick(rng, 100*time.Millisecond, 2*time.Second),
		readTimeout:     pick(rng, time.Second, 10*time.Second),
		fixed:           rng.IntN(8) == 0,
	}
	if rng.IntN(2) == 0 {
		c.history = aodi.HistoryWindow{Age: pick(rng, 0, 20*time.Second), Bytes: pick[int64](rng, 0, 256<<10, 4<<20)}
	}
	for i := range c.segment {
		c.segment[i] = pick[uint32](rng, 32, 32, 64, 256)
	}
	switch rng.IntN(4) {
	case 0: // one leaf
		c.size, c.windows = 64, []window{{0, 64}}
	case 1: // some leaves, the last one not full
		c.size, c.windows = 2000, []window{{500, 24}, {1020, 8}, {1968, 32}}
	case 2: // a map of three levels
		c.size, c.windows = 600_000, []window{{0, 16}, {262_136, 16}, {599_960, 40}}
	default: // many leaves
		c.size = 40 * 512
		for i := range int64(40) {
			c.windows = append(c.windows, window{i*512 + 100, 2})
		}
	}
	c.size *= chunkSize
	c.chooseGrowth()
	c.chooseSpace(rng)
	return c
}

func newWorld(t *testing.T, seed uint64, tl *tally) *world {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	w := &world{t: t, seed: seed, rng: rng, cfg: choose(rng), began: time.Now(), tally: tl}
	w.roles = rand.New(rand.NewPCG(seed, 0x401e5)).IntN(2) == 0 // a draw of its own: all others stay
	if w.roles {
		w.cfg.space.segments = [4]uint64{} // tails that are kept are more than was reckoned with
	}
	if rand.New(rand.NewPCG(seed, 0xc0de)).IntN(2) == 0 { // another one
		w.cfg.settings = "?compress=default" // frames refer to what the mirror has, however fast the line
	}
	w.net = network.New(w.split())
	s, a, b, c := w.node("s"), w.node("a"), w.node("b"), w.node("c")
	s.children, a.children = []*node{a, b}, []*node{c}
	a.from, b.from, c.from = s, s, a
	w.nodes = []*node{s, a, b, c}
	w.reign = &reign{model: newModel(w.cfg.windows, w.cfg.size), primary: s}
	w.reigns, s.rules = []*reign{w.reign}, w.reign
	for i, n := range w.nodes {
		opt := aodi.CreateOptions{SegmentChunks: w.cfg.segment[i], Mirror: n.from != nil, Capacity: w.cfg.capacity(i)}
		if n.from == nil {
			opt.Size = w.cfg.size
		}
		if w.cfg.fixed {
			w.must(n.mem.Grow(w.cfg.limit))
		}
		w.must(aodi.CreateOn(&disk.Faulty{Disk: n.mem, After: n.hold}, opt))
		n.down, n.bounds = true, []int64{opt.Capacity}
	}
	return w
}

func (w *world) node(name string) *node {
	return &node{w: w, name: name, mem: disk.NewMemory(w.cfg.limit), held: map[int64]bool{}, shelf: shelf{files: map[string]*disk.Memory{}}}
}

// split is a stream of random numbers of its own, for somebody who draws at times that the driver does not set.
func (w *world) split() *rand.Rand { return rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64())) }

// source is the primary, or was the last one.
func (w *world) source() *node { return w.primary }

// run is the whole history.
func (w *world) run() {
	defer w.free()
	for _, n := range w.nodes {
		w.revive(n)
	}
	for i := 0; i < w.cfg.steps && !w.over; i++ {
		w.step(i)
		w.look()
	}
	w.heal()
	if w.over {
		return
	}
	if w.crown(); w.over {
		return
	}
	w.drain()
	w.finish()
}

// step does one operation of the table.
func (w *world) step(i int) {
	total, table := 0, w.operations()
	for _, o := range table {
		total += o.weight
	}
	k := w.rng.IntN(total)
	for _, o := range table {
		if k -= o.weight; k < 0 {
			w.doing = o.name
			w.say("step %d: %s", i, o.name)
			w.count(o.name, 1)
			o.do(w)
			return
		}
	}
}

// must is for what cannot fail.
func (w *world) must(err error) {
	if err != nil {
		w.fatal("error", "%v", err)
	}
}

// say notes what happens, for the message of a failure.
func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if s := w.source(); s != nil && s.v != nil && s.up() {
		end, durable := s.v.Pointers()
		line += fmt.Sprintf("  [%d of %d]", durable, end)
	}
	w.said = append(w.said, line)
	w.note("", line, 0, 0)
	if w.verbose {
		fmt.Fprintf(w.out, "%v %s\n", time.Since(w.began), line)
	}
}

// note adds to the trace, which tells whether two runs were the same.
func (w *world) note(who, what string, off int64, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprint(h, w.trace, who, what, off, n)
	w.trace = h.Sum64()
}

func (w *world) count(what string, n int) { w.tally.add(what, n) }

// failure is what the oracle found.
type failure struct{ check, text string }

// fatal ends the history: a promise is broken.
func (w *world) fatal(check, format string, args ...any) {
	panic(failure{check, fmt.Sprintf(format, args...)})
}

// free gives all memory back, and ends what runs.
func (w *world) free() {
	for _, n := range w.nodes {
		if n.d != nil && !n.down {
			n.d.die(false)
		}
	}
	w.net.Close()
	for _, stop := range w.guests {
		stop()
	}
	for _, n := range w.nodes {
		if n.d != nil && !n.down {
			_ = n.shutdown()
		}
		n.shelf.free()
		n.mem.Free()
		if n.image != nil {
			n.image.Free()
		}
	}
	if w.old != nil {
		w.old.Free()
	}
}

// tally counts what happened in all histories.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[what] += n
}

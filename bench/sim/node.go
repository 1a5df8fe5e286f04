package sim

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/sim/network"
	"cawrm/cawrm"
	"cawrm/gc"
	recovery "cawrm/recover"
)

// node is a machine: a disk that outlives its processes, and the process that runs now, if any.
type node struct {
	w        *world
	name     string
	from     *node   // its source; nil for the source of all
	children []*node // its mirrors: those that it dials
	rules    *reign  // of which it is the primary, as far as it knows; nil: a mirror
	mem      *disk.Memory
	held     map[int64]bool // chunks of the disk that have space; the node's disk guards it
	shelf    shelf          // other containers that lie there
	clone    *clone         // a clone of the volume's, or none
	image    *disk.Memory   // what the disk holds after the power loss that has ended the process

	d       *simDisk
	host    *network.Host
	v       *aodi.Volume
	peer    *cawrm.Peer
	served  chan error
	feeds   *cawrm.Source
	mirrors []*cawrm.Mirror // of the children, in their order
	cleaner *gc.Cleaner     // nil in most histories

	floor   aodi.Position // a mirror: the highest position that it has shown; it never goes back
	adopted bool          // a mirror has shown that it knows its source
	born    []int64       // the sizes that it had until then
	reach   time.Time     // from when on its history could be read, when it was looked at last
	bounds  []int64       // the capacities that it can come up with: the last may not be durable
	looked  *aodi.Volume  // the volume that was compared when it had failed
	down    bool          // no process
	closed  bool          // the last process ended in order
	trouble trouble
	snaps   snaps

	came     aodi.Position // where the process came up, as
	cameAs   aodi.Role
	written  bool         // a primary: since it came up
	demoting bool         // it may be a mirror when it comes up
	handed   bool         // it must be the primary when it comes up
	turned   *atomic.Bool // its process has said that it is a mirror now, after it was a primary: then that is durable
}

// hold notes that a range of the disk has space since the operation, or has no more.
func (n *node) hold(op disk.Op, off int64, bytes int) {
	has := op == disk.OpReserve || op == disk.OpWrite
	if !has && op != disk.OpPunch {
		return
	}
	for at := off / chunkSize; at*chunkSize < off+int64(bytes); at++ {
		n.held[at] = has
	}
}

// holds tells whether all of a range has space.
func (n *node) holds(off int64, bytes int) bool {
	for at := off / chunkSize; at*chunkSize < off+int64(bytes); at++ {
		if !n.held[at] && !n.w.cfg.fixed {
			return false
		}
	}
	return true
}

// up tells that the process runs, as far as it knows.
func (n *node) up() bool { return !n.down && !n.d.isDead() }

func (n *node) end() aodi.Position     { p, _ := n.v.Pointers(); return p }
func (n *node) durable() aodi.Position { _, p := n.v.Pointers(); return p }

// boot starts a process on what the disk holds: it opens the volume, listens, and feeds the mirrors. It is false
// when the process did not come up, because it crashed again or met a disk in trouble.
func (n *node) boot() bool {
	w := n.w
	n.d = newSimDisk(n, w.split())
	n.d.setTrouble(n.trouble)
	if w.rng.IntN(4) == 0 {
		n.d.light(w.rng.IntN(40), w.rng.IntN(2) == 0) // a crash while it recovers, or soon after
	}
	n.host, n.peer, n.mirrors, n.feeds, n.v = nil, nil, nil, nil, nil
	v, err := aodi.OpenOn(n.d, w.cfg.options(w, n))
	if err != nil {
		n.down = true
		allowed := n.d.isDead() || n.d.hurt() && errors.Is(err, syscall.EIO) || n.d.starving() && errors.Is(err, syscall.ENOSPC)
		if !allowed {
			w.fatal("open", "%s does not open: %v", n.name, err)
		}
		w.say("%s does not come up: %v", n.name, err)
		if n.d.isDead() {
			n.mourn()
		} else if n.d.hurt() {
			n.trouble = trouble{} // else it never would
		}
		return false
	}
	n.v, n.down, n.closed = v, false, false
	n.came, n.cameAs, n.written = n.end(), v.Role(), false
	if n.rules != nil && n.cameAs == aodi.RolePrimary && n.turned != nil && n.turned.Load() {
		w.fatal("heads", "%s has said that it is a mirror now, and comes up as a primary", n.name)
	}
	if n.rules != nil && n.rules.number == 0 {
		n.rules.link = v.Info().Lineage[0]
	}
	n.startCleaner()
	n.connect()
	w.count("boots", 1)
	return n.up()
}

// connect puts the node on the network.
func (n *node) connect() {
	w := n.w
	host := w.net.Up(n.name)
	n.d.mu.Lock()
	n.host = host
	if n.d.dead {
		host.Kill()
	}
	n.d.mu.Unlock()
	v, turned := n.v, new(atomic.Bool)
	n.turned = turned
	n.peer = cawrm.NewPeer(cawrm.PeerConfig{Name: n.name, ReadTimeout: w.cfg.readTimeout, Logger: w.logger(n.name),
		Turned: func(string) { turned.Store(v.Role() == aodi.RoleMirror) }})
	if err := n.peer.AddVolume("vm", n.v); err != nil {
		w.fatal("error", "%v", err)
	}
	n.served = make(chan error, 1)
	ln := host.Listen()
	go func(p *cawrm.Peer, done chan error) { done <- p.Serve(ln) }(n.peer, n.served)
	var err error
	cfg := w.cfg.mirror(w, n, n, host)
	cfg.Peer, cfg.Name = n.peer, "vm"
	if n.feeds, err = cawrm.NewSource(n.v, cfg, 0); err != nil {
		w.fatal("error", "%s: %v", n.name, err)
	}
	for _, c := range n.children {
		if err := n.feeds.AddGiven(c.name, w.cfg.mirror(w, n, c, host).URL); err != nil {
			w.fatal("error", "%s: mirror %s: %v", n.name, c.name, err)
		}
	}
	n.attach()
	n.d.mu.Lock()
	n.d.noSleep = n.rules == nil && !n.adopted || w.disturbed // adopting takes checkpoints beside those that come by themselves
	n.d.mu.Unlock()
}

// shutdown ends the process in order: mirrors, peer, volume. The error is the volume's.
func (n *node) shutdown() error {
	if n.feeds != nil {
		n.feeds.Close()
	}
	if n.peer != nil {
		n.peer.Close()
		if err := <-n.served; err != nil && !n.d.isDead() {
			n.w.fatal("error", "%s: serve: %v", n.name, err)
		}
	}
	n.mirrors, n.feeds, n.peer = nil, nil, nil
	n.stopCleaner()
	var err error
	if n.clone != nil {
		n.w.closeClone(n, n.clone)
	}
	if n.v != nil {
		err = n.v.Close()
	}
	if h := n.host; h != nil {
		h.Kill()
	}
	n.down = true
	return err
}

// bury takes away what is left of a process that has died, and leaves the disk as the crash left it.
func (n *node) bury() {
	n.d.die(false)
	_ = n.shutdown() // of the dead: its disk answers nothing
	n.mourn()
}

// mourn makes what the crash left the node's disk.
func (n *node) mourn() {
	n.down, n.closed, n.reach = true, false, time.Time{} // the cuts since the last checkpoint are gone
	n.adopted = n.adopted && n.floor > 0
	if n.image == nil {
		return // the process died, not the machine: its page cache is still there
	}
	n.mem.Free()
	n.mem, n.image = n.image, nil
	n.shelf.mourn()
}

// calmly runs something that can wait for a lock which is held over the disk.
func (n *node) calmly(do func()) {
	wake := n.d.calm()
	defer wake()
	do()
}

// options are a volume's, small enough that a short history meets every mechanism.
func (c *config) options(w *world, n *node) aodi.Options {
	o := aodi.Options{Logger: w.logger(n.name), DurableInterval: c.durable, CheckpointInterval: c.checkpointEvery,
		CheckpointBytes: c.checkpointBytes, MapMemory: c.mapMemory, History: c.history, Files: files{n.d}}
	return o
}

func (c *config) mirror(w *world, from, to *node, host *network.Host) cawrm.MirrorConfig {
	return cawrm.MirrorConfig{ID: to.name, URL: "cawrm://" + to.name + "/vm" + c.settings, Window: c.window, KeepAlive: c.keepAlive,
		ReadTimeout: c.readTimeout, Dial: host.Dial, Logger: w.logger(from.name)}
}

func (w *world) logger(name string) *slog.Logger {
	if !w.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(w.out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.String("at", time.Since(w.began).String()+" "+name)
		}
		return a
	}}))
}

// inspect lets the checker, and a dump, look at a disk that no process has open.
func (n *node) inspect() {
	w := n.w
	r, err := recovery.Check(n.mem, recovery.CheckOptions{})
	if err != nil {
		w.fatal("checker", "%s: %v", n.name, err)
	}
	for _, v := range r.Violations {
		w.say("%s: %s %s", n.name, v.Rule, v.Text)
	}
	if !r.OK() {
		w.fatal("checker", "%s: %s %s", n.name, r.Violations[0].Rule, r.Violations[0].Text)
	}
	w.count("checks", 1)
}

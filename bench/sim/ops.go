package sim

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/sim/network"
)

// operation is a line of the table: what happens, and how often. What comes to the volume or the mirror comes here.
type operation struct {
	name   string
	weight int
	do     func(w *world)
}

var table []operation

func init() {
	table = []operation{
		{"write", 300, (*world).opWrite},
		{"write tried", 40, (*world).opTryWrite},
		{"write of parts", 80, (*world).opWriteParts},
		{"trim", 60, (*world).opTrim},
		{"zero", 40, (*world).opZero},
		{"flush", 80, (*world).opFlush},
		{"read", 80, (*world).opRead},
		{"extents", 20, (*world).opExtents},
		{"clients", 60, (*world).opClients},
		{"checkpoint", 30, (*world).opCheckpoint},
		{"time", 150, (*world).opTime},
		{"crash", 40, (*world).opCrash},
		{"fuse", 40, (*world).opFuse},
		{"restart", 20, (*world).opRestart},
		{"boot", 80, (*world).opBoot},
		{"disk trouble", 25, (*world).opDiskTrouble},
		{"disk well", 25, (*world).opDiskWell},
		{"weather", 50, (*world).opWeather},
		{"cut", 40, (*world).opCut},
		{"replay", 15, (*world).opReplay},
		{"stranger", 4, (*world).opStranger},
		{"old copy", 12, (*world).opOldCopy},
		{"snapshot", 30, (*world).opSnapshot},
		{"delete snapshot", 20, (*world).opDeleteSnapshot},
		{"moment", 30, (*world).opMoment},
		{"delete copy", 8, (*world).opDeleteCopy},
		{"pause", 12, (*world).opPause},
		{"remove", 6, (*world).opRemove},
		{"flush mode", 25, (*world).opFlushMode},
		{"verify", 20, (*world).opVerify},
		{"clean", 40, (*world).opClean},
		{"resize", 15, (*world).opResize},
		{"capacity", 12, (*world).opCapacity},
		{"rollback", 12, (*world).opRollback},
		{"receive", 16, (*world).opReceive},
		{"clone", 40, (*world).opClone},
		{"write beside a checkpoint", 25, (*world).opWriteBeside},
		{"snapshot in need", 15, (*world).opSnapshotInNeed},
	}
}

func say(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func (w *world) buffer(n int64) []byte { return make([]byte, n) }

// volume is the source's, booting it first when it is down.
func (w *world) volume() *aodi.Volume {
	s := w.source()
	if !s.up() || s.v.Status().Failed != nil {
		if !w.revive(s) {
			return nil
		}
	}
	if s.rules != w.reign || s != w.source() {
		return nil // nobody is, for now; or another one
	}
	return s.v
}

// run does one client's operation that makes these records, and adds to the model what was accepted.
func (w *world) change(v *aodi.Volume, plan []record, do func() error) (ok bool) {
	s := w.source()
	before := s.end()
	err := do()
	after := s.end()
	w.say("  -> %d records, %v", len(plan), err)
	if s.d.isDead() { // nobody heard the answer: any of the records may be there
		for _, r := range plan {
			w.model.add(r)
		}
		w.known = w.model.end
		return false
	}
	if !w.allowed(s, err) && !errors.Is(err, disk.ErrWouldBlock) {
		w.fatal("error", "%s: %v", w.doing, err)
	}
	n := int(after - before)
	if before != w.model.end || n > len(plan) || err == nil && n != len(plan) {
		w.fatal("prefix", "%s: end_ptr went from %d to %d, the model has %d records and planned %d more (%v)", w.doing, before, after,
			w.model.end, len(plan), err)
	}
	for _, r := range plan[:n] {
		w.model.add(r)
	}
	w.known = w.model.end
	return err == nil
}

// allowed tells whether an operation may end with that error: only the disk's own doing is a reason.
func (w *world) allowed(n *node, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, syscall.ENOSPC):
		return n.d.starving() || n.cramped()
	case errors.Is(err, syscall.EIO):
		return n.d.hurt()
	}
	return false
}

// place picks n sectors within a window, from sector s on.
func (w *world) place(align int64) (s, n int64) {
	win := w.someWindow()
	most := win.count * sectors
	if w.rng.IntN(10) > 0 {
		most = min(most, 8*sectors)
	}
	n = max(align, (1+w.rng.Int64N(most))/align*align)
	s = win.first*sectors + w.rng.Int64N((win.count*sectors-n)/align+1)*align
	return s, n
}

func (w *world) opWrite()      { w.write(sectors) }
func (w *world) opWriteParts() { w.write(1) }

func (w *world) write(align int64) {
	v := w.volume()
	if v == nil {
		return
	}
	s, n := w.place(align)
	fua := w.rng.IntN(6) == 0
	plan, p := w.model.write(s, n)
	if w.change(v, plan, func() error { return v.WriteAt(p, s*sectorSize, fua) }) && fua {
		w.flushed = w.model.end
	}
}

func (w *world) opTryWrite() {
	v := w.volume()
	if v == nil {
		return
	}
	s, n := w.place(sectors)
	plan, p := w.model.write(s, n)
	w.change(v, plan, func() error { return v.TryWriteAt(p, s*sectorSize) })
}

// opTrim discards a range: rounded inwards, and anything between windows too.
func (w *world) opTrim() {
	v := w.volume()
	if v == nil {
		return
	}
	s, n := w.place(1)
	if w.rng.IntN(8) == 0 {
		s, n = 0, w.model.size()/sectorSize
	}
	fua := w.rng.IntN(6) == 0
	plan := w.model.chunks((s+sectors-1)/sectors, (s+n)/sectors, hole)
	if w.change(v, plan, func() error { return v.Trim(s*sectorSize, n*sectorSize, fua) }) && fua {
		w.flushed = w.model.end
	}
}

func (w *world) opZero() {
	v := w.volume()
	if v == nil {
		return
	}
	s, n := w.place(1)
	fua, noHole, to := w.rng.IntN(6) == 0, w.rng.IntN(2) == 0, hole
	if noHole {
		to = zero
	}
	plan := w.model.zeroes(s, n, to)
	if w.change(v, plan, func() error { return v.WriteZeroes(s*sectorSize, n*sectorSize, noHole, fua) }) && fua {
		w.flushed = w.model.end
	}
}

func (w *world) opFlush() {
	v := w.volume()
	if v == nil {
		return
	}
	if w.change(v, nil, v.Flush) {
		w.flushed = w.model.end
	}
}

func (w *world) opCheckpoint() {
	v := w.volume()
	if v == nil {
		return
	}
	w.source().calmly(func() {
		if w.change(v, nil, v.Checkpoint) {
			w.flushed = w.model.end
		}
	})
}

func (w *world) opRead() {
	v := w.volume()
	if v == nil {
		return
	}
	s, n := w.place(1)
	p := w.buffer(n * sectorSize)
	read := v.ReadAt
	if w.rng.IntN(4) == 0 {
		read = v.TryReadAt
	}
	err := read(p, s*sectorSize)
	src := w.source()
	if errors.Is(err, disk.ErrWouldBlock) || src.d.isDead() {
		return
	}
	if err != nil {
		if !w.allowed(src, err) {
			w.fatal("read", "%v", err)
		}
		return
	}
	// Compared within whole chunks, the rest of which is what the model says.
	first, last := s/sectors, (s+n+sectors-1)/sectors
	whole := w.buffer((last - first) * chunkSize)
	for lba := first; lba < last; lba++ {
		for i, stamp := range w.model.now(lba).content {
			fill(whole[(lba-first)*chunkSize+int64(i)*sectorSize:][:sectorSize], stamp)
		}
	}
	copy(whole[(s-first*sectors)*sectorSize:], p)
	if bad := w.unlike(whole, first, w.model.end); bad != "" {
		w.fatal("read", "%d sectors from %d on: %s", n, s, bad)
	}
}

// opExtents compares what is a hole and what are zeroes.
func (w *world) opExtents() {
	v := w.volume()
	if v == nil {
		return
	}
	win := w.someWindow()
	off, at := win.first*chunkSize, win.first
	err := v.Extents(off, win.count*chunkSize, func(n int64, flags uint32) bool {
		for range n / chunkSize {
			want := map[kind]uint32{hole: aodi.ExtentHole | aodi.ExtentZero, zero: aodi.ExtentZero}[w.model.now(at).kind]
			if flags != want {
				w.fatal("read", "extent of chunk %d has flags %d, not %d", at, flags, want)
			}
			at++
		}
		return true
	})
	src := w.source()
	switch {
	case src.d.isDead() || err != nil && src.d.hurt():
	case err != nil || at != win.first+win.count:
		w.fatal("read", "extents from chunk %d on end at %d: %v", win.first, at, err)
	}
}

// opTime lets time pass: a blink mostly, sometimes minutes.
func (w *world) opTime() {
	d := time.Duration(1 + w.rng.Int64N(1<<(12+w.rng.IntN(24))))
	w.say("  -> %v", d)
	time.Sleep(d)
}

func (w *world) someone() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

// opCrash ends a process, or takes a machine's power, now; one time in eight of two machines at once.
func (w *world) opCrash() {
	for range 1 + w.rng.IntN(8)/7 {
		if n := w.someone(); n.up() {
			silent := w.rng.IntN(3) > 0
			w.say("  -> %s, power %v", n.name, silent)
			n.d.die(silent)
		}
	}
}

// opFuse lets a later operation of a disk be the last one of its process.
func (w *world) opFuse() {
	if n := w.someone(); n.up() {
		k, silent := w.rng.IntN(1<<w.rng.IntN(8)), w.rng.IntN(3) > 0
		w.say("  -> %s after %d operations, power %v", n.name, k, silent)
		n.d.light(k, silent)
	}
}

// opRestart closes a process in order, and starts it again at once or some time.
func (w *world) opRestart() {
	n := w.someone()
	if n.down {
		return
	}
	w.close(n)
	if n.down && w.rng.IntN(2) == 0 && w.revive(n) && w.rng.IntN(3) == 0 {
		n.trouble = trouble{read: 1 + w.rng.IntN(8)} // now, when nothing of the maps was read yet
		n.d.setTrouble(n.trouble)
	}
}

// close ends a process in order and looks at what it left.
func (w *world) close(n *node) {
	w.say("  -> %s closes", n.name)
	end := n.end()
	err := n.shutdown()
	if n.d.isDead() {
		n.mourn()
		return
	}
	if err != nil {
		if !w.allowed(n, err) {
			w.fatal("error", "%s: close: %v", n.name, err)
		}
		return
	}
	n.closed = true
	if r := n.rules; r != nil && n.v.Role() == aodi.RolePrimary {
		r.flushed = max(r.flushed, min(end, r.model.end))
	}
	n.inspect()
}

// opBoot brings somebody up who is down, or has failed.
func (w *world) opBoot() {
	for _, n := range w.nodes {
		if !n.up() || n.v.Status().Failed != nil {
			w.revive(n)
			return
		}
	}
}

func (w *world) opDiskTrouble() {
	n := w.someone()
	var t trouble
	switch w.rng.IntN(7) {
	case 0, 6:
		t.read = 1 + w.rng.IntN(1<<(1+w.rng.IntN(6)))
	case 1:
		t.write = 1 + w.rng.IntN(100)
	case 2:
		t.sync = 1 + w.rng.IntN(30)
	case 3:
		t.full = true
	default:
		t.slow = time.Duration(1+w.rng.IntN(50)) * time.Millisecond
	}
	w.say("  -> %s: %+v", n.name, t)
	n.trouble = t
	if !n.down {
		n.d.setTrouble(t)
	}
}

func (w *world) opDiskWell() {
	for _, n := range w.nodes {
		n.trouble = trouble{}
		if !n.down {
			n.d.setTrouble(trouble{})
		}
	}
}

func (w *world) opWeather() {
	r := w.rng
	now := network.Weather{Delay: pick(r, 0, time.Millisecond, 100*time.Millisecond), Late: pick(r, 0, 0, time.Second),
		CutOdds: pick(r, 0, 0, 2, 1), Pieces: pick(r, 0, 0, 100, 10000), Stalled: r.IntN(5) == 0, Down: r.IntN(8) == 0}
	w.say("  -> %+v", now)
	w.net.SetWeather(now)
}

func (w *world) opCut()    { w.net.Cut() }
func (w *world) opReplay() { w.net.Replay() }

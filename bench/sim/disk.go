package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"

	"cawrm/aodi/disk"
)

// errDead is what a process gets from its disk after the simulation has ended it. Nobody hears of it.
var errDead = errors.New("this process is dead")

// trouble is what a disk does wrong. Odds are one of so many, 0: never.
type trouble struct {
	read, write, sync int
	full              bool          // no space can be reserved
	slow              time.Duration // a write or a sync takes so long, at most
}

// simDisk is one life of a node's disk: it fails and is slow by chance, and takes the picture of a crash right
// before or after one of its operations, whoever asked for it.
type simDisk struct {
	*disk.Faulty
	n     *node
	mem   *disk.Memory
	fixed bool

	mu       sync.Mutex
	rng      *rand.Rand
	trouble  trouble
	dead     bool
	fuse     int  // operations until the crash, < 0: none
	silent   bool // the crash takes the power, not only the process
	late     bool // the crash comes after the operation
	failed   int  // operations that were failed in this life
	starved  int  // for want of space
	ops      int
	unheld   int // writes that found no space, since nobody had reserved it
	sleepers int
	noSleep  bool // somebody may wait for a lock that is held over the disk: virtual time cannot pass then
}

func newSimDisk(n *node, rng *rand.Rand) *simDisk {
	d := &simDisk{n: n, mem: n.mem, rng: rng, fuse: -1, noSleep: true, fixed: n.w.cfg.fixed}
	d.Faulty = &disk.Faulty{Disk: n.mem, Rule: d.before, After: d.after}
	return d
}

// Fixed tells that this is a device.
func (d *simDisk) Fixed() bool { return d.fixed }

// Size of a device does not change.
func (d *simDisk) Size() int64 {
	if d.fixed {
		return d.n.w.cfg.limit
	}
	return d.mem.Size()
}

// TryReadAt has the bytes at hand now and then.
func (d *simDisk) TryReadAt(p []byte, off int64) error {
	d.mu.Lock()
	at := !d.dead && d.trouble.read == 0 && d.rng.IntN(2) == 0
	d.mu.Unlock()
	if !at {
		return disk.ErrWouldBlock
	}
	return d.mem.TryReadAt(p, off)
}

func (d *simDisk) before(op disk.Op, off int64, n int) error {
	d.mu.Lock()
	err := d.chanceLocked(op, n)
	if err == nil && op == disk.OpWrite && d.trouble.full && !d.n.holds(off, n) {
		d.unheld++
		err = fmt.Errorf("%s: write %d bytes at %d: %w", d.n.name, n, off, syscall.ENOSPC)
	}
	pace, sleep := d.paceLocked(op)
	if err != nil && sleep > 0 {
		d.sleepers--
	}
	d.mu.Unlock()
	d.n.w.note(d.n.name, string(op), off, n)
	if err != nil {
		return err
	}
	for range pace {
		runtime.Gosched()
	}
	if sleep > 0 {
		time.Sleep(sleep)
		d.mu.Lock()
		d.sleepers--
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return errDead
	}
	return nil
}

// chanceLocked decides what happens to an operation.
func (d *simDisk) chanceLocked(op disk.Op, n int) error {
	if err := d.burnLocked(); err != nil {
		return err
	}
	odds := map[disk.Op]int{disk.OpRead: d.trouble.read, disk.OpWrite: d.trouble.write, disk.OpSync: d.trouble.sync}[op]
	switch {
	case odds > 0 && d.rng.IntN(odds) == 0:
		d.failed++
		switch op {
		case disk.OpSync:
			return d.mem.FailSync(d.rng)
		case disk.OpRead:
			return &disk.ShortRead{N: d.rng.IntN(n + 1), Err: fmt.Errorf("%s: read: %w", d.n.name, syscall.EIO)}
		}
		return fmt.Errorf("%s: %s: %w", d.n.name, op, syscall.EIO)
	case d.trouble.full && (op == disk.OpReserve || op == disk.OpGrow):
		d.starved++
		return fmt.Errorf("%s: %s: %w", d.n.name, op, syscall.ENOSPC)
	}
	return nil
}

// burnLocked counts an operation of the machine, which may be the last one.
func (d *simDisk) burnLocked() error {
	if d.dead {
		return errDead
	}
	d.ops++
	if d.fuse >= 0 {
		if d.fuse--; d.fuse < 0 {
			if d.late = d.rng.IntN(2) == 0; !d.late {
				d.dieLocked()
				return errDead
			}
		}
	}
	return nil
}

// paceLocked lets others run for a while, so that writes end in any order; or lets time pass.
func (d *simDisk) paceLocked(op disk.Op) (yields int, sleep time.Duration) {
	if (op == disk.OpWrite || op == disk.OpSync) && d.trouble.slow > 0 && !d.noSleep {
		d.sleepers++
		return 0, time.Duration(1 + d.rng.Int64N(int64(d.trouble.slow)))
	}
	if d.rng.IntN(2) == 0 {
		return 0, 0
	}
	return d.rng.IntN(8), 0
}

func (d *simDisk) after(op disk.Op, off int64, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n.hold(op, off, n)
	if d.late && !d.dead {
		d.dieLocked()
	}
}

// dieLocked ends this life at this moment: the picture of the disk is taken, and the host is off the network.
func (d *simDisk) dieLocked() {
	d.dead = true
	n := d.n
	if d.silent {
		n.image = d.mem.Crash(d.rng)
		n.shelf.crash(d)
	}
	if n.host == nil {
		return
	}
	if d.silent {
		n.host.PowerOff()
	} else {
		n.host.Kill()
	}
}

// die ends this life now.
func (d *simDisk) die(silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead {
		d.silent = silent
		d.dieLocked()
	}
}

// light sets a fuse: the life ends at the n-th operation from now.
func (d *simDisk) light(n int, silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse, d.silent, d.late = n, silent, false
}

func (d *simDisk) isDead() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.dead }

// hurt tells whether this life met an I/O error.
func (d *simDisk) hurt() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.failed > 0 }

// failing tells whether it meets them now.
func (d *simDisk) failing() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.trouble.read > 0 }

// starving tells whether this life met a full disk.
func (d *simDisk) starving() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.starved > 0 }

// overran tells whether something was written to space that was not reserved, on a full disk.
func (d *simDisk) overran() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.unheld > 0 }

func (d *simDisk) setTrouble(t trouble) { d.mu.Lock(); defer d.mu.Unlock(); d.trouble = t }

// calm lets nobody sleep over this disk until wake is called.
func (d *simDisk) calm() (wake func()) {
	d.mu.Lock()
	was := d.noSleep
	d.noSleep = true
	for d.sleepers > 0 {
		d.mu.Unlock()
		time.Sleep(time.Millisecond)
		d.mu.Lock()
	}
	d.mu.Unlock()
	return func() { d.mu.Lock(); defer d.mu.Unlock(); d.noSleep = was }
}

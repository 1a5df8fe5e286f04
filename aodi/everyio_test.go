package aodi_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"

	"go.uber.org/goleak"
)

// Fail the i-th I/O, for every i until a run meets no fault any more, of everything that a volume does; and lose power
// right before it. See (*trial).judge for what must hold then.

// scene is something that a volume does, and what has to be there before.
type scene struct {
	name   string
	before func(x *trial)       // without faults
	during func(x *trial) error // one of its I/Os fails
	judge  func(x *trial, err error)
}

var scenes = []scene{
	{"create", (*trial).startEmpty, (*trial).create, (*trial).judgeCreate},
	{"open, closed in order", (*trial).startClosed, (*trial).open, (*trial).judge},
	{"open, after a crash", (*trial).startCrashed, (*trial).open, (*trial).judge},
	{"read", (*trial).startOpen, (*trial).read, (*trial).judge},
	{"write load", (*trial).startOpen, (*trial).load, (*trial).judge},
	{"flush", (*trial).startOpen, (*trial).flush, (*trial).judge},
	{"checkpoint", (*trial).startLoaded, (*trial).checkpoint, (*trial).judge},
	{"clean", (*trial).startGarbage, (*trial).clean, (*trial).judgeClean},
	{"grow", (*trial).startLoaded, (*trial).grow, (*trial).judge},
	{"change of the capacity", (*trial).startLoaded, (*trial).bound, (*trial).judge},
	{"close", (*trial).startLoaded, (*trial).close, (*trial).judge},
	{"adopt", (*trial).startNewMirror, (*trial).adopt, (*trial).judgeMirror},
	{"epoch", (*trial).startMirror, (*trial).epochs, (*trial).judgeMirror},
	{"open a mirror, after a crash", (*trial).startCrashedMirror, (*trial).openMirror, (*trial).judgeMirror},
	{"close of a mirror", (*trial).startStaged, (*trial).close, (*trial).judgeMirror},
	roleScene("promote", (*trial).startMirrorInEpoch, (*trial).promote, aodi.RolePrimary),
	roleScene("promote in a jump epoch", (*trial).startMirrorInJump, (*trial).promote, aodi.RolePrimary),
	roleScene("demote", (*trial).startPrimary, (*trial).demote, aodi.RoleMirror),
	roleScene("new term", (*trial).startPrimary, (*trial).newTerm, aodi.RolePrimary),
	roleScene("leave the branch", (*trial).startOnBranch, (*trial).leaveBranch, aodi.RoleMirror),
	{"go on with another source", (*trial).startBetweenSources, (*trial).otherSource, (*trial).judgeMirror},
	roleScene("rollback", (*trial).startPast, (*trial).rollback, aodi.RolePrimary),
}

// TestEveryIO ensures that whichever I/O fails, and however, nothing that was acknowledged is lost, the error says where,
// reads go on, opening again works, and the checker agrees; the same after a power loss at that I/O. EIO
// meets every I/O, the other faults each third, with CAWRM_EVERY=1 every one; under the race detector all meet a few.
func TestEveryIO(t *testing.T) {
	seed := seedOf(t)
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // thousands of volumes, each with its buffers
	leaks := goleak.IgnoreCurrent()
	fix := newFixture(t, seed)
	for s := range scenes {
		t.Run(scenes[s].name, func(t *testing.T) {
			var counts []string
			for f := range faults {
				step := 1
				if raceEnabled {
					step = 12
				} else if f > 0 && os.Getenv("CAWRM_EVERY") == "" {
					step = 3
				}
				n := int(seed % uint64(step))
				for ; everyIO(t, fix, &scenes[s], &faults[f], n, seed); n += step {
				}
				counts = append(counts, fmt.Sprintf("%s: %d", faults[f].name, n))
			}
			t.Log("I/Os: ", strings.Join(counts, ", "))
		})
	}
	fix.close(t)
	if !t.Failed() {
		goleak.VerifyNone(t, leaks)
	}
}

// fixture is what trials begin with.
type fixture struct {
	closed *trial // a container that was closed in order
	source *trial // an open volume whose log is durable
	branch *trial // another one, which has gone on in a later term
}

func newFixture(t *testing.T, seed uint64) *fixture {
	closed, source := newTrial(t, "a closed container", seed, 0), newTrial(t, "a source", seed, 0)
	awake := func(x *trial) error { // a volume that rests frees what the scenes read of its log
		opt := quiet
		opt.Now = func() time.Time { return time.Unix(1, 0) }
		v, err := aodi.OpenOn(x.d, opt)
		x.v = v
		return err
	}
	closed.must(closed.create())
	closed.must(closed.open())
	closed.must(closed.steps(40))
	closed.must(closed.close())
	source.must(source.create())
	source.must(awake(source))
	source.must(source.steps(150))
	source.must(source.flushAll())
	branch := newTrial(t, "a source of another branch", seed, 0)
	branch.must(branch.create())
	branch.must(awake(branch))
	branch.must(branch.steps(60))
	branch.must(branch.v.NewTerm(1 << 60))
	branch.must(branch.steps(40))
	branch.must(branch.flushAll())
	return &fixture{closed, source, branch}
}

func (f *fixture) close(t *testing.T) {
	f.source.must(f.source.close())
	f.source.d.free()
	f.branch.must(f.branch.close())
	f.branch.d.free()
	f.closed.d.free()
}

func newTrial(t *testing.T, what string, seed uint64, i int) *trial {
	x := &trial{t: t, what: what, rng: newRand(seed), h: &history{chunks: trialChunks}}
	x.d = &breaking{Memory: disk.NewMemory(trialDisk), rng: newRand(seed + uint64(i)), acked: func() int { return int(x.acked.Load()) }}
	return x
}

// everyIO lets I/O number i fail, and tells whether there was one.
func everyIO(t *testing.T, fix *fixture, s *scene, f *fault, i int, seed uint64) bool {
	t.Helper()
	x := newTrial(t, fmt.Sprintf("%s, I/O %d: %s", s.name, i, f.name), seed, i)
	x.fix = fix
	defer func() {
		if x.v != nil {
			_ = x.v.Close()
		}
		x.d.free()
	}()
	s.before(x)
	x.d.arm(f, i)
	err := s.during(x)
	x.hit = x.d.heal()
	if x.hit != "" {
		x.what += " of a " + x.hit
	}
	if err != nil && x.hit == "" {
		x.fatalf("failed without a fault: %v", err)
	}
	if err != nil && (!errors.Is(err, f.err) || !strings.Contains(err.Error(), breakingName)) {
		x.fatalf("the error %q does not name the container and %v", err, f.err)
	}
	s.judge(x, err)
	return x.hit != ""
}

const (
	trialDisk   = 1 << 26
	trialChunks = 1100 // three leaves of the map
)

// trial is a volume, or a mirror of one, on a disk that breaks.
type trial struct {
	t     *testing.T
	what  string
	rng   *rand.Rand
	d     *breaking
	v     *aodi.Volume // nil: not open
	h     *history     // exactly the records that were accepted
	acked atomic.Int64 // of these, how many must survive
	stamp uint64
	hit   string
	kept  int      // records below the snapshot, of the scene that cleans
	tried []histOp // of the operation that failed: accepted was none of them

	fix    *fixture
	source *aodi.Volume // of a mirror; all of h is durable there
	cuts   map[int]bool // where a mirror may stand
	moved  int          // where it stood when it had given up another source's epoch, which does not come back; 0: it has not

	// Of the scenes in which the role changes.
	shown   [][]byte // what may be read: before, and after
	becomes aodi.Role
	fork    aodi.Position
}

func (x *trial) fatalf(text string, args ...any) {
	x.t.Helper()
	x.t.Fatalf("%s: %s", x.what, fmt.Sprintf(text, args...))
}

func (x *trial) must(err error) {
	x.t.Helper()
	if err != nil {
		x.fatalf("%v", err)
	}
}

var tiny = aodi.CreateOptions{Size: trialChunks * chunk, SegmentChunks: 32} // many segments

func (x *trial) startEmpty() {}

func (x *trial) create() error { return aodi.CreateOn(x.d, tiny) }

func (x *trial) open() error {
	v, err := aodi.OpenOn(x.d, quiet)
	x.v = v
	return err
}

func (x *trial) startOpen() {
	x.startClosed()
	x.must(x.open()) // the map is on the disk
	x.must(x.steps(20))
}

func (x *trial) startLoaded() {
	x.startOpen()
	x.must(x.steps(80))
}

func (x *trial) startClosed() {
	c := x.fix.closed
	x.swap(c.d.Crash(x.rng)) // a copy: all is synced
	x.h.ops = append(x.h.ops, c.h.ops...)
	x.acked.Store(c.acked.Load())
	x.stamp = c.stamp
}

// startCrashed leaves a log of several segments behind the checkpoint.
func (x *trial) startCrashed() {
	x.startLoaded()
	x.must(x.v.Flush())
	x.acked.Store(int64(len(x.h.ops)))
	x.swap(x.d.Crash(x.rng))
}

// swap goes on with another disk.
func (x *trial) swap(d *disk.Memory) {
	if x.v != nil {
		_ = x.v.Close()
		x.v = nil
	}
	x.d.Memory.Free()
	x.d.Memory, x.d.unsynced = d, nil
}

func (x *trial) read() error {
	b := make([]byte, 70*chunk)
	for off := int64(0); off+int64(len(b)) <= x.v.Size(); off += int64(len(b)) {
		if err := x.v.ReadAt(b, off); err != nil {
			return err
		}
	}
	return nil
}

func (x *trial) load() error { return errors.Join(x.steps(70), x.flushAll()) }

func (x *trial) flush() error { return errors.Join(x.steps(1), x.flushAll(), x.steps(1), x.flushAll()) }

// grow makes the volume larger, by so much that the map becomes higher the second time, and writes there.
func (x *trial) grow() error {
	for _, n := range []int{x.h.chunks + 100, 512*512 + 7} {
		before, _ := x.v.Pointers()
		err := x.h.grow(x.v, n)
		if after, _ := x.v.Pointers(); after == before {
			x.h.ops = x.h.ops[:len(x.h.ops)-1] // nothing was accepted
		}
		if err != nil {
			return err
		}
		x.acked.Store(int64(len(x.h.ops)))
		if err := x.v.WriteAt(stamped(uint64(n)), int64(n-1)*chunk, false); err != nil {
			return err
		}
		x.h.ops = append(x.h.ops, histOp{n - 1, uint64(n)})
		if err := x.steps(5); err != nil {
			return err
		}
	}
	return x.checkpoint()
}

// bound gives the container a bound, a larger one, and none.
func (x *trial) bound() error {
	for _, capacity := range []int64{trialDisk / 2, trialDisk, 0} {
		had := x.v.Space().Capacity
		err := x.v.SetCapacity(capacity)
		if has := x.v.Space().Capacity; err == nil && has != capacity || err != nil && has != had && x.v.Status().Failed == nil {
			x.fatalf("the capacity is %d after %d was set to %d: %v", has, had, capacity, err)
		}
		if err != nil {
			return err
		}
		if err := x.steps(5); err != nil {
			return err
		}
	}
	return x.flushAll()
}

func (x *trial) checkpoint() error {
	err := x.v.Checkpoint()
	if err == nil {
		x.acked.Store(int64(len(x.h.ops)))
	}
	return err
}

func (x *trial) close() error {
	v := x.v
	x.v = nil
	err := v.Close()
	if err == nil && x.source == nil {
		x.acked.Store(int64(len(x.h.ops)))
	}
	return err
}

func (x *trial) flushAll() error {
	err := x.v.Flush()
	if err == nil {
		x.acked.Store(int64(len(x.h.ops)))
	}
	return err
}

func (x *trial) steps(n int) error {
	for range n {
		if err := x.step(); err != nil {
			return err
		}
	}
	return nil
}

// step does one random thing. What was accepted when an error is returned is what end_ptr tells.
func (x *trial) step() error {
	chunks := int(x.v.Size() / chunk)
	c := x.rng.IntN(chunks)
	var ops []histOp
	before, _ := x.v.Pointers()
	var err error
	switch op := x.rng.IntN(100); {
	case op < 10:
		ops = []histOp{{c, 0}} // of a hole it is no record
		err = x.v.Trim(int64(c)*chunk, chunk, false)
	case op < 15:
		return x.flushAll()
	default:
		n := 1
		if op < 25 {
			n = min(1+x.rng.IntN(40), chunks-c)
		}
		var p []byte
		for i := range n {
			x.stamp++
			p = append(p, stamped(x.stamp)...)
			ops = append(ops, histOp{c + i, x.stamp})
		}
		err = x.v.WriteAt(p, int64(c)*chunk, op == 99)
		if err == nil && op == 99 {
			defer func() { x.acked.Store(int64(len(x.h.ops))) }()
		}
	}
	after, _ := x.v.Pointers()
	if x.h.ops = append(x.h.ops, ops[:after-before]...); err != nil {
		x.tried = ops[after-before:]
	}
	return err
}

// judgeCreate: what was created half is no container and says so, and creating again helps.
func (x *trial) judgeCreate(err error) {
	for _, d := range []*disk.Memory{x.d.Memory, x.d.crashed} {
		if d == nil {
			continue
		}
		_, found := recovery.Newest(d)
		if found != nil && (err == nil && d != x.d.crashed || !errors.Is(found, format.ErrMagic) && !errors.Is(found, format.ErrChecksum)) {
			x.fatalf("opening what create left: %v", found)
		}
	}
	if x.d.crashed != nil {
		x.d.crashed.Free()
		x.d.crashed = nil // nothing more to ask of it
	}
	x.must(x.create())
	x.must(x.open())
	x.judge(nil)
}

// judge looks at the volume as it goes on, and at its disk after a power loss at the fault, after one now, and as it is.
func (x *trial) judge(err error) {
	if x.v != nil {
		x.goesOn()
	}
	if c := x.d.crashed; c != nil {
		x.reopen(c, x.d.before)
	}
	now := x.d.Crash(x.rng)
	defer now.Free()
	x.reopen(now, int(x.acked.Load()))
	if v := x.v; v != nil {
		failed := v.Status().Failed
		if err := x.close(); (err == nil) != (failed == nil) {
			x.fatalf("close: %v, though the volume's failure is %v", err, failed)
		}
	}
	x.reopen(x.d, int(x.acked.Load()))
}

// seen is what may be read: of a volume that has failed, until it is opened again, also a part of the operation that met the failure.
func (x *trial) seen(failed error) *history {
	if failed == nil {
		return x.h
	}
	return &history{chunks: x.h.chunks, first: x.h.first, ops: slices.Concat(x.h.ops, x.tried)}
}

// goesOn: a volume shows what it accepted. If it failed it takes nothing more, else it goes on.
func (x *trial) goesOn() {
	failed := x.v.Status().Failed
	if failed == nil && x.v.Flush() != nil { // what was under way behind it has met the fault now
		failed = x.v.Status().Failed
	}
	if failed != nil && x.kept > 0 {
		x.rightOrRefused()
	} else if got := x.seen(failed).prefixOf(x.t, x.v); got < len(x.h.ops) && !sameState(x.h, got) {
		x.fatalf("%d records were accepted, what can be read is the first %d", len(x.h.ops), got)
	}
	if failed == nil {
		err := x.steps(40)
		if err != nil && errors.Is(err, x.d.was.err) { // what is made ready ahead had failed: told once, then tried again
			err = x.steps(40)
		}
		x.must(errors.Join(err, x.flushAll()))
		return
	}
	if !errors.Is(failed, syscall.EIO) || !strings.Contains(failed.Error(), breakingName) {
		x.fatalf("the failure %q is no EIO of the container", failed)
	}
	for range 2 {
		if err := x.v.Flush(); !errors.Is(err, syscall.EIO) {
			x.fatalf("flush after a failure: %v", err)
		}
		if err := x.v.WriteAt(stamped(1), 0, false); !errors.Is(err, syscall.EIO) && x.v.Role() == aodi.RolePrimary {
			x.fatalf("write after a failure: %v", err)
		}
		if err := x.v.Checkpoint(); !errors.Is(err, syscall.EIO) {
			x.fatalf("checkpoint after a failure: %v", err)
		}
	}
}

// reopen ensures that a disk holds a prefix of what was accepted, with all that was acknowledged, and goes on.
func (x *trial) reopen(d disk.Disk, acked int) {
	x.t.Helper()
	x.check(d)
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		x.fatalf("opening again: %v", err)
	}
	got := x.h.prefixOf(x.t, v)
	if got < acked {
		x.fatalf("%d records after opening again, %d were acknowledged", got, acked)
	}
	x.must(v.WriteAt(stamped(77), 0, true))
	x.must(v.Close())
	x.check(d)
}

func (x *trial) check(d disk.Disk) {
	x.t.Helper()
	r, err := recovery.Check(d, recovery.CheckOptions{})
	x.must(err)
	for _, v := range r.Violations {
		x.t.Errorf("%s: check: %v", x.what, v)
	}
	if !r.OK() {
		x.t.FailNow()
	}
}

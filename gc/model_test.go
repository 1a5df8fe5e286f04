package gc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	"cawrm/gc"
	recovery "cawrm/recover"

	"pgregory.net/rapid"
)

// modelChunks are few, so that much is overwritten; segments are smaller still.
const modelChunks = 150

// state is what a volume holds: a stamp a chunk, 0 for a hole.
type state [modelChunks]uint64

// model is a volume that is cleaned, and what it should be.
type model struct {
	t     *rapid.T
	dir   string
	d     *disk.Memory
	v     *aodi.Volume
	c     *gc.Cleaner
	now   state
	snaps map[string]state
	names []string // of snaps, in the order in which they were made
	ever  map[aodi.Position]state
	safe  aodi.Position // what must survive a crash
	stamp uint64
	made  int
}

// TestModel ensures that a volume which is cleaned is what a map in memory is, and its snapshots and clones too, whatever is done to
// it in any order, and that the checker agrees each time that it is closed or falls.
func TestModel(t *testing.T) {
	began := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		if time.Since(began) > 6*time.Second { // with more checks it is for whoever waits: -rapid.checks
			return
		}
		m := newModel(t)
		defer m.free()
		t.Repeat(map[string]func(*rapid.T){
			"":           m.look,
			"write":      m.write,
			"rewrite":    m.rewrite,
			"trim":       m.trim,
			"flush":      m.flush,
			"snapshot":   m.snapshot,
			"delete":     m.delete,
			"rollback":   m.rollback,
			"clone":      m.clone,
			"gc":         m.clean,
			"move":       m.move,
			"checkpoint": m.checkpoint,
			"close":      m.close,
			"crash":      m.crash,
		})
		m.close(t)
	})
}

func newModel(t *rapid.T) *model {
	dir, err := os.MkdirTemp("", "model")
	m := &model{t: t, dir: dir, d: disk.NewMemory(64 << 20), snaps: map[string]state{}, ever: map[aodi.Position]state{0: {}}}
	m.must(err)
	capacity := int64(0)
	if rapid.Bool().Draw(t, "bounded") {
		capacity = (format.DataStart + 100*32) * chunk // enough for all snapshots
	}
	m.must(aodi.CreateOn(m.d, aodi.CreateOptions{Size: modelChunks * chunk, SegmentChunks: 32, Capacity: capacity}))
	m.open()
	return m
}

func (m *model) free() {
	m.c.Close()
	_ = m.v.Close()
	m.d.Free()
	_ = os.RemoveAll(m.dir)
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) open() {
	var err error
	m.v, err = aodi.OpenOn(m.d, aodi.Options{DurableInterval: time.Hour, CheckpointInterval: time.Hour})
	m.must(err)
	m.c = gc.Start(m.v, gc.Options{})
}

// note takes down what the volume is as of where it stands.
func (m *model) note() {
	end, _ := m.v.Pointers()
	m.ever[end] = m.now
}

func (m *model) all() { m.safe, _ = m.v.Pointers() }

func (m *model) put(at, n int) {
	for i := at; i < at+n; i++ {
		m.stamp++
		m.now[i] = m.stamp
		m.must(m.v.WriteAt(stamped(m.stamp), int64(i)*chunk, false))
		m.note()
	}
}

func (m *model) write(t *rapid.T) {
	at := rapid.IntRange(0, modelChunks-1).Draw(t, "at")
	m.put(at, rapid.IntRange(1, min(8, modelChunks-at)).Draw(t, "n"))
}

// rewrite fills segments.
func (m *model) rewrite(*rapid.T) { m.put(0, modelChunks) }

func (m *model) trim(t *rapid.T) {
	at := rapid.IntRange(0, modelChunks-1).Draw(t, "at")
	n := rapid.IntRange(1, modelChunks-at).Draw(t, "n")
	clear(m.now[at : at+n])
	m.must(m.v.Trim(int64(at)*chunk, int64(n)*chunk, false))
	m.note()
}

func (m *model) flush(*rapid.T) {
	m.must(m.v.Flush())
	m.all()
}

func (m *model) checkpoint(*rapid.T) {
	m.must(m.v.Checkpoint())
	m.all()
}

func (m *model) keep(name string) { m.snaps[name], m.names = m.now, append(m.names, name) }

func (m *model) newName() string { m.made++; return fmt.Sprint("s", m.made) }

func (m *model) snapshot(t *rapid.T) {
	if len(m.names) > 4 {
		t.Skip("enough")
	}
	name := m.newName()
	_, err := m.v.CreateSnapshot(name)
	m.must(err)
	m.keep(name)
	m.all()
}

func (m *model) one(t *rapid.T) string {
	if len(m.names) == 0 {
		t.Skip("no snapshots")
	}
	return rapid.SampledFrom(m.names).Draw(t, "snapshot")
}

func (m *model) delete(t *rapid.T) {
	name := m.one(t)
	m.must(m.v.DeleteSnapshot(name))
	delete(m.snaps, name)
	for i := range m.names {
		if m.names[i] == name {
			m.names = append(m.names[:i:i], m.names[i+1:]...)
			break
		}
	}
	m.all()
}

func (m *model) rollback(t *rapid.T) {
	if len(m.names) > 4 {
		t.Skip("enough")
	}
	to, name := m.one(t), m.newName()
	w, err := m.v.OpenView(to)
	m.must(err)
	defer w.Close()
	m.must(m.v.Rollback(w, name))
	m.keep(name)
	m.now = m.snaps[to]
	m.note()
	m.all()
}

// clone makes one, writes to it, and gives it up.
func (m *model) clone(t *rapid.T) {
	of, name := m.one(t), m.newName()
	path := filepath.Join(m.dir, name)
	m.must(m.v.CreateClone(of, name, path))
	c, err := m.v.OpenClone(name, aodi.Options{})
	m.must(err)
	want := m.snaps[of]
	m.stamp++
	at := rapid.IntRange(0, modelChunks-1).Draw(t, "at")
	want[at] = m.stamp
	m.must(c.WriteAt(stamped(m.stamp), int64(at)*chunk, false))
	cleaner := gc.Start(c, gc.Options{})
	_, err = cleaner.Run(context.Background(), nil)
	cleaner.Close()
	m.must(err)
	m.holds("the clone", c, want)
	m.must(c.Close())
	m.must(errors.Join(m.v.ForgetClone(name), os.Remove(path)))
}

func (m *model) clean(*rapid.T) {
	_, err := m.c.Run(context.Background(), nil)
	m.must(err)
}

// move moves what is live out of any segment.
func (m *model) move(t *rapid.T) {
	var all []uint32
	m.must(m.v.Sealed(func(s aodi.SealedSegment) bool { all = append(all, s.Segment); return true }))
	if len(all) == 0 {
		t.Skip("nothing is sealed")
	}
	_, err := m.v.Relocate(rapid.SampledFrom(all).Draw(t, "segment"), nil)
	if !errors.Is(err, aodi.ErrNotCleanable) {
		m.must(err)
	}
}

func (m *model) holds(what string, r interface{ ReadAt([]byte, int64) error }, want state) {
	m.t.Helper()
	b := make([]byte, modelChunks*chunk)
	m.must(r.ReadAt(b, 0))
	for i, stamp := range want {
		p := b[i*chunk : (i+1)*chunk]
		if string(p) != string(stamped(stamp)) {
			m.t.Fatalf("%s: chunk %d holds %d, not %d", what, i, binary.LittleEndian.Uint64(p), stamp)
		}
	}
}

// look compares the volume, and its snapshots.
func (m *model) look(*rapid.T) {
	m.holds("the volume", m.v, m.now)
	for _, name := range m.names {
		w, err := m.v.OpenView(name)
		m.must(err)
		m.holds("snapshot "+name, w, m.snaps[name])
		w.Close()
	}
	if n := len(m.v.Snapshots()); n != len(m.names) {
		m.t.Fatalf("%d snapshots, not %d", n, len(m.names))
	}
}

func (m *model) check() {
	m.t.Helper()
	r, err := recovery.Check(m.d, recovery.CheckOptions{})
	m.must(err)
	for _, v := range r.Violations {
		m.t.Fatalf("check: %v", v)
	}
}

func (m *model) close(*rapid.T) {
	m.c.Close()
	m.must(m.v.Close())
	m.check()
	m.open()
	m.all()
}

// crash takes the power: what was not flushed may be gone, from some record on.
func (m *model) crash(t *rapid.T) {
	after := m.d.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "crash"), 0)))
	m.c.Close()
	_ = m.v.Close()
	m.d.Free()
	m.d = after
	m.check()
	m.open()
	end, _ := m.v.Pointers()
	was, ok := m.ever[end]
	if !ok || end < m.safe {
		m.t.Fatalf("it comes up at %d, %d was durable", end, m.safe)
	}
	m.now = was
	m.all()
}

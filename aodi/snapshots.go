package aodi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"cawrm/aodi/format"
)

// A snapshot is a root of the forward map that a checkpoint wrote and that is kept: making one costs a checkpoint, whatever
// the size, and having any number costs a write one look into the newest, to see whether what it replaces is still needed
// (head). They stand one behind the other, oldest first, each made of the one before, and the volume of the last.
//
// Deleting one goes over its map, leaf by leaf in small steps, and counts as dead what neither the map under it nor the one
// over it has (reap.go).

// Errors of snapshots.
var (
	ErrNoSnapshot     = errors.New("no such snapshot")
	ErrSnapshotExists = errors.New("there is a snapshot of that name")
	ErrSnapshotInUse  = errors.New("the snapshot is in use")
)

// MaxSnapshotName bounds the name of a snapshot, in bytes.
const MaxSnapshotName = 128

// SnapshotInfo is what a person wants to know of a snapshot.
type SnapshotInfo struct {
	Name      string
	Position  Position // it holds the records below
	Time      time.Time
	Size      int64 // logical, bytes
	UsedBytes int64 // logical chunks that are not holes
	Logged    int64 // data that the log took before Position, bytes; as in Mark
	Astray    bool  // of a branch that the volume has left for its source's: Position is none of its own history
}

// snapshot is a kept root. Guarded by Volume.mapMu.
type snapshot struct {
	head
	name     string
	position Position
	size     int64
	time     int64
	logged   uint64
	log      format.LogPlace
	cut      bool // of the history: nobody named it
	astray   bool // of a branch that was left
	deleting bool
	users    int // views that are open
}

// hidden tells that nobody sees it by a name.
func (s *snapshot) hidden() bool { return s.deleting || s.cut }

// CheckSnapshotName says what is wrong with a name: it goes into NBD's export names, behind an @, and onto command lines.
func CheckSnapshotName(name string) error {
	bad := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '@' || r == '/' }
	switch {
	case name == "":
		return fmt.Errorf("a snapshot needs a name: %w", syscall.EINVAL)
	case len(name) > MaxSnapshotName:
		return fmt.Errorf("the name of a snapshot has %d bytes, more than %d: %w", len(name), MaxSnapshotName, syscall.EINVAL)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, bad) || name[0] == '-':
		return fmt.Errorf("%q is not a name for a snapshot: no space, @ or / in it, no - at its front: %w", name, syscall.EINVAL)
	}
	return nil
}

// CreateSnapshot keeps the volume as it is now, durably, under a name. Writes that have returned are in it. Any goroutine.
// Errors: EINVAL, ErrSnapshotExists, ENOSPC, the volume's failure.
func (v *Volume) CreateSnapshot(name string) (SnapshotInfo, error) {
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	return v.createSnapshotLocked(&snapshot{name: name, time: v.now().UnixNano()})
}

// createSnapshotLocked is called with ckpt.run held.
func (v *Volume) createSnapshotLocked(s *snapshot) (SnapshotInfo, error) {
	err := CheckSnapshotName(s.name)
	if err != nil {
		return SnapshotInfo{}, err
	}
	v.mapMu.RLock()
	err = v.admitSnapshotLocked(s.name)
	v.mapMu.RUnlock()
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("%s@%s: %w", v.d.Name(), s.name, err)
	}
	if _, err := v.checkpointLocked(0, s, nil); err != nil {
		return SnapshotInfo{}, err
	}
	v.dur.notify() // mirrors wait for it
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return s.info(), nil
}

func (v *Volume) admitSnapshotLocked(name string) error {
	if !v.hasIdentity {
		return fmt.Errorf("the mirror has not met its source yet: %w", syscall.EINVAL)
	}
	if v.snapshotLocked(name) != nil {
		return ErrSnapshotExists
	}
	return nil
}

// Snapshots lists the snapshots, oldest first.
func (v *Volume) Snapshots() []SnapshotInfo {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	all := []SnapshotInfo{}
	for _, s := range v.snaps {
		if !s.hidden() {
			all = append(all, s.info())
		}
	}
	return all
}

func (s *snapshot) info() SnapshotInfo {
	return SnapshotInfo{Name: s.name, Position: s.position, Time: time.Unix(0, s.time), Size: s.size, UsedBytes: s.mapped * chunkSize,
		Logged: int64(s.logged) * chunkSize, Astray: s.astray}
}

// snapshotLocked finds a snapshot by its name, nil if there is none.
func (v *Volume) snapshotLocked(name string) *snapshot {
	for _, s := range v.snaps {
		if s.name == name && !s.hidden() {
			return s
		}
	}
	return nil
}

// DeleteSnapshot takes a snapshot away, durably. What only it has led to becomes free in the background. Any goroutine.
// Errors: ErrNoSnapshot, ErrSnapshotInUse, ENOSPC, the volume's failure.
func (v *Volume) DeleteSnapshot(name string) error {
	v.mapMu.Lock()
	s := v.snapshotLocked(name)
	var err error
	switch {
	case s == nil:
		err = ErrNoSnapshot
	case v.cloneOfLocked(name) != "":
		err = fmt.Errorf("%w: clone %s is made of it", ErrSnapshotInUse, v.cloneOfLocked(name))
	case s.users > 0:
		err = ErrSnapshotInUse
	default:
		s.deleting = true
		v.segs.chance()
	}
	v.mapMu.Unlock()
	if err != nil {
		return fmt.Errorf("%s@%s: %w", v.d.Name(), name, err)
	}
	defer v.reaper.request()
	return v.Checkpoint()
}

// loadSnapshots makes the kept roots of what the catalog has.
func (v *Volume) loadSnapshots() {
	for _, s := range v.catalog.Snapshots {
		t := tree{id: treeMap, arena: v.arena, pages: v.pages, root: s.Root, height: int(s.Height)}
		v.pushSnapshotLocked(&snapshot{head: head{tree: t, mapped: int64(s.Mapped), gone: s.Gone}, name: s.Name, position: s.Position,
			size: s.Size, time: s.Time, logged: s.Logged, log: s.Log, deleting: s.Flags&format.FlagDeleting != 0, cut: s.Flags&format.FlagCut != 0,
			astray: s.Flags&format.FlagAstray != 0})
	}
	v.catalog.Snapshots = nil
}

// pushSnapshotLocked puts a snapshot between the last one and the volume, whose map is what the snapshot's is.
func (v *Volume) pushSnapshotLocked(s *snapshot) {
	s.under = v.main.under
	v.main.under = &s.head
	v.snaps = append(v.snaps, s)
}

// catalogLocked is the catalog as a checkpoint writes it.
func (v *Volume) catalogLocked() format.Catalog {
	c := format.Catalog{Lineage: slices.Clone(v.catalog.Lineage), Next: slices.Clone(v.catalog.Next), Mirrors: slices.Clone(v.catalog.Mirrors),
		Clones: slices.Clone(v.catalog.Clones), Base: v.catalog.Base}
	c.Snapshots = make([]format.Snapshot, 0, len(v.snaps)+1)
	for _, s := range v.snaps {
		c.Snapshots = append(c.Snapshots, s.entry())
	}
	return c
}

func (s *snapshot) entry() format.Snapshot {
	e := format.Snapshot{Name: s.name, Position: s.position, Root: s.tree.root, Height: uint32(s.tree.height), Size: s.size,
		Time: s.time, Mapped: uint64(s.mapped), Gone: s.gone, Logged: s.logged, Log: s.log}
	if s.cut {
		e.Flags |= format.FlagCut
	}
	if s.deleting {
		e.Flags |= format.FlagDeleting
	}
	if s.astray {
		e.Flags |= format.FlagAstray
	}
	return e
}

// freezeSnapshotLocked makes the map that the checkpoint closes a snapshot's, too. Until the checkpoint has written it the
// pages that are new are read from memory; what replaces them from now on is of the next generation.
func (v *Volume) freezeSnapshotLocked(f *frozen, s *snapshot) {
	f.snap = s
	s.head = head{tree: v.main.tree, mapped: v.main.mapped}
	s.position, s.logged, s.log = v.shown(), v.shownLogged, v.shownPlace
	if s.size == 0 { // else a mirror was told it: an empty one has taken its source's newest size
		s.size = v.Size()
	}
}

// completeCatalog puts into the catalog what only writing the pages has told: where the maps are of a snapshot that is new, or
// in which cleaning has moved something.
func (f *frozen) completeCatalog(w *pageWriter) error {
	moved := false
	for i := range f.catalog.Snapshots {
		root := &f.catalog.Snapshots[i].Root
		moved = moved || inMemory(*root)
		w.root(root)
	}
	if !moved {
		return nil
	}
	parts, err := f.catalog.Parts(w.v.geo)
	if err == nil && !slices.EqualFunc(parts, f.catalogBytes, func(a, b []byte) bool { return len(a) == len(b) }) {
		err = errors.New("the catalog has changed its length")
	}
	if err == nil {
		f.catalogBytes, f.meta.Catalog = parts, format.Chain(parts, f.catalogAt)[0].Ref
	}
	return err
}

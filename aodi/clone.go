package aodi

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"cawrm/aodi/format"
)

// A clone is a volume in a container of its own that was made of a snapshot: chunks that it has not written are read from
// there, chunks that it has discarded are not (format.HoleRef). It has a log, a map, and snapshots of its own. The container
// of the snapshot knows its clones, so that the snapshot is not deleted under them; the clone knows its base, so that it is
// not opened over another.

// inBase marks a chunk that a clone has to read from its base.
const inBase = ^ref(0)

// Errors of clones.
var (
	ErrNoClone = errors.New("no such clone")
	ErrIsClone = errors.New("it is a clone")
)

// CloneInfo is what a volume knows of a clone.
type CloneInfo struct {
	Name     string
	Snapshot string // that it is made of
	Path     string // its container
}

// CreateClone makes a container at path, which must not exist, for a writable clone of a snapshot, and remembers it durably.
// It takes no time and no space, whatever the size. Any goroutine. Errors: ErrNoSnapshot, EEXIST, what Create refuses, the
// volume's failure.
func (v *Volume) CreateClone(snapshot, name, path string) error {
	if snapshot == ownSnapshot(name) {
		return fmt.Errorf("%s: a clone %q of snapshot %q would take the snapshot with it when it is deleted: call it otherwise: %w",
			v.d.Name(), name, snapshot, syscall.EINVAL)
	}
	return v.createClone(snapshot, name, path, 0, nil)
}

// ownSnapshot is the snapshot that is made for a clone, and goes with it.
func ownSnapshot(clone string) string { return "of-" + clone }

// CreateCloneNow is CreateClone of what the volume holds, or a mirror shows, at this moment, which becomes a snapshot of-NAME.
// Errors: ErrSnapshotExists, those of CreateClone.
func (v *Volume) CreateCloneNow(name, path string) error {
	s, err := v.CreateSnapshot(ownSnapshot(name))
	if err != nil {
		return err
	}
	if err := v.createClone(s.Name, name, path, 0, nil); err != nil {
		return errors.Join(err, v.DeleteSnapshot(s.Name))
	}
	return nil
}

// CreateCloneAt is CreateClone of a moment of the history. The cut before it becomes a snapshot of-NAME, and what was written
// from there to the moment is copied. Errors: ErrNoHistory, ErrSnapshotExists, those of CreateClone.
func (v *Volume) CreateCloneAt(at time.Time, name, path string) error {
	w, err := v.OpenMoment(at)
	if err != nil {
		return err
	}
	defer w.Close()
	snapshot := ownSnapshot(name)
	if err := CheckSnapshotName(snapshot); err != nil {
		return err
	}
	if err := v.nameCut(w.cut, snapshot); err != nil {
		return err
	}
	if err := v.createClone(snapshot, name, path, w.Size(), w.copySince); err != nil {
		return errors.Join(err, v.DeleteSnapshot(snapshot))
	}
	return nil
}

// createClone makes a clone of the snapshot's size, or of a larger one.
func (v *Volume) createClone(snapshot, name, path string, size int64, fill func(*Volume) error) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	base, err := v.OpenView(snapshot)
	if err != nil {
		return err
	}
	defer base.Close() // once it is remembered, the snapshot stays
	if v.base != nil {
		return fmt.Errorf("%s: %w: a clone of a clone cannot be made", v.d.Name(), ErrIsClone)
	}
	if v.findClone(name) >= 0 {
		return fmt.Errorf("there is a clone %q of %s: %w", name, v.d.Name(), syscall.EEXIST)
	}
	if err := createIn(v.opt.Files, path, CreateOptions{Size: max(size, base.Size()), SegmentChunks: v.geo.SegmentChunks}); err != nil {
		return err
	}
	if err := v.begetClone(base, path, fill); err != nil {
		return errors.Join(err, v.opt.Files.Remove(path))
	}
	v.mapMu.Lock()
	v.catalog.Clones = append(v.catalog.Clones, format.Clone{Snapshot: snapshot, Name: name, Path: path})
	v.mapMu.Unlock()
	// Durable here after it is durable there: a crash between leaves a container that nobody refers to.
	return v.Checkpoint()
}

// begetClone tells a new container what it is a clone of, and fills in what it has beyond that.
func (v *Volume) begetClone(base *View, path string, fill func(*Volume) error) error {
	clone, err := Open(path, Options{Logger: v.log, Files: v.opt.Files})
	if err != nil {
		return err
	}
	clone.mapMu.Lock()
	clone.catalog.Base = &format.Base{Container: v.super.Container, Position: base.snap.position, Snapshot: base.name, Path: v.d.Name()}
	clone.mapMu.Unlock()
	if err := clone.Close(); err != nil || fill == nil {
		return err
	}
	over, err := v.OpenView(base.name)
	if err != nil {
		return err
	}
	if clone, err = Open(path, Options{Logger: v.log, Base: over, Files: v.opt.Files}); err != nil {
		over.Close()
		return err
	}
	return errors.Join(fill(clone), clone.Close())
}

// OpenClone opens one of the volume's clones. It must be closed before the volume is. Errors: ErrNoClone, what Open refuses.
func (v *Volume) OpenClone(name string, opt Options) (*Volume, error) {
	i := v.findClone(name)
	if i < 0 {
		return nil, fmt.Errorf("%s: %w: %q", v.d.Name(), ErrNoClone, name)
	}
	v.mapMu.RLock()
	c := v.catalog.Clones[i]
	v.mapMu.RUnlock()
	var err error
	opt.Files = v.opt.Files
	if opt.Base, err = v.OpenView(c.Snapshot); err != nil {
		return nil, err
	}
	clone, err := Open(c.Path, opt)
	if err != nil {
		opt.Base.Close()
	}
	return clone, err
}

// ForgetClone makes the volume know a clone no more, durably; its container stays. A snapshot that was made for it is deleted.
// Errors: ErrNoClone, the volume's failure.
func (v *Volume) ForgetClone(name string) error {
	i := v.findClone(name)
	if i < 0 {
		return fmt.Errorf("%s: %w: %q", v.d.Name(), ErrNoClone, name)
	}
	v.mapMu.Lock()
	snapshot := v.catalog.Clones[i].Snapshot
	v.catalog.Clones = slices.Delete(slices.Clone(v.catalog.Clones), i, i+1)
	v.mapMu.Unlock()
	// First the one, then the other: a crash between leaves a snapshot, which can be deleted by hand.
	if err := v.Checkpoint(); err != nil || snapshot != ownSnapshot(name) {
		return err
	}
	return v.DeleteSnapshot(snapshot)
}

// Clones lists the clones of the volume's snapshots.
func (v *Volume) Clones() []CloneInfo {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	all := []CloneInfo{}
	for _, c := range v.catalog.Clones {
		all = append(all, CloneInfo{Name: c.Name, Snapshot: c.Snapshot, Path: c.Path})
	}
	return all
}

func (v *Volume) findClone(name string) int {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return slices.IndexFunc(v.catalog.Clones, func(c format.Clone) bool { return c.Name == name })
}

// cloneOfLocked is the name of a clone of a snapshot, "" when there is none.
func (v *Volume) cloneOfLocked(snapshot string) string {
	for _, c := range v.catalog.Clones {
		if c.Snapshot == snapshot {
			return c.Name
		}
	}
	return ""
}

// checkBase refuses a clone without its base, or over another.
func (v *Volume) checkBase() error {
	want := v.catalog.Base
	switch {
	case want == nil && v.base == nil:
		return nil
	case want == nil:
		return fmt.Errorf("%s: it is no clone, and was opened as one: %w", v.d.Name(), syscall.EINVAL)
	case v.base == nil:
		return fmt.Errorf("%s: %w of snapshot %q of %s: serve that, which serves its clones", v.d.Name(), ErrIsClone, want.Snapshot, want.Path)
	case v.base.v.super.Container != want.Container || v.base.snap.position != want.Position:
		return fmt.Errorf("%s: %w of position %d of container %s, not of position %d of %s", v.d.Name(), ErrIsClone,
			want.Position, want.Container, v.base.snap.position, v.base.v.super.Container)
	}
	return nil
}

// holeOver is what a chunk that is discarded becomes: over something that the base has, a hole of its own.
func (v *Volume) holeOver(lba uint64) (ref, error) {
	if !v.base.reaches(lba) {
		return format.Unmapped, nil
	}
	at := int64(lba) * chunkSize
	_, flags, err := v.base.firstExtent(at, at+chunkSize)
	if err != nil || flags&ExtentHole == 0 {
		return format.HoleRef, err
	}
	return format.Unmapped, nil
}

// nextLeafToDiscard is the number of the first leaf, from lba on and below end, in which there is something to discard: one
// that exists, or in a clone one over which the base has something.
func (v *Volume) nextLeafToDiscard(h *head, lba, end uint64) (uint64, error) {
	index, _, err := h.tree.next(lba/format.RefsPerPage, (end+format.RefsPerPage-1)/format.RefsPerPage)
	if err != nil || !v.base.reaches(lba) {
		return index, err
	}
	stop, flags, err := v.base.firstExtent(int64(lba)*chunkSize, min(int64(end)*chunkSize, v.base.Size()))
	if err == nil && flags&ExtentHole != 0 {
		index = min(index, uint64(stop)/chunkSize/format.RefsPerPage)
	} else {
		index = lba / format.RefsPerPage
	}
	return index, err
}

package aodi

import (
	"fmt"
	"sort"
	"syscall"
)

// What a mirror needs of snapshots: at the source, which one comes next in the log, and that it is durable before the mirror
// hears of it; at the mirror, to make one that is its source's.

// NextSnapshot finds the snapshot with the least position at or above from that is wanted, nil when there is none. A snapshot
// that is made after durable_ptr was asked lies at or above that: so who reads the log up to there misses none.
func (v *Volume) NextSnapshot(from Position, wanted func(SnapshotInfo) bool) *SnapshotInfo {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	at := sort.Search(len(v.snaps), func(i int) bool { return v.snaps[i].position >= from }) // they are in the order of their positions
	for _, s := range v.snaps[at:] {
		if info := s.info(); !s.hidden() && wanted(info) {
			return &info
		}
	}
	return nil
}

// SettledSnapshot returns a snapshot that is durable: it waits for the checkpoint that is making it. Errors: ErrNoSnapshot;
// the volume's failure.
func (v *Volume) SettledSnapshot(name string) (SnapshotInfo, error) {
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	if err := v.failure(); err != nil {
		return SnapshotInfo{}, err
	}
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	s := v.snapshotLocked(name)
	if s == nil {
		return SnapshotInfo{}, fmt.Errorf("%s@%s: %w", v.d.Name(), name, ErrNoSnapshot)
	}
	return s.info(), nil
}

// MirrorSnapshot keeps a mirror as it is as its source's snapshot, durably: by the same name, of the same time. It does nothing
// when that is there already. The mirror must show exactly the snapshot's position. Its size there is the mirror's, if that is
// less: a source that was empty and took the newest size of its own source has one that belongs to a later position.
// Errors: ErrSnapshotExists, when the name is another one's; those of CreateSnapshot.
func (v *Volume) MirrorSnapshot(of SnapshotInfo) error {
	v.commit.take() // so that the position stays
	defer v.commit.give()
	v.ckpt.run.take()
	defer v.ckpt.run.give()
	v.mapMu.RLock()
	there := v.snapshotLocked(of.Name)
	v.mapMu.RUnlock()
	switch {
	case there != nil && there.position == of.Position:
		return v.failure()
	case v.Role() != RoleMirror || v.shown() != of.Position:
		return fmt.Errorf("%s@%s: position %d cannot be kept by a %s at position %d: %w", v.d.Name(), of.Name, of.Position, v.Role(),
			v.shown(), syscall.EINVAL)
	}
	_, err := v.createSnapshotLocked(&snapshot{name: of.Name, time: of.Time.UnixNano(), size: min(of.Size, v.Size())})
	return err
}

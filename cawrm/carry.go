package cawrm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// How a snapshot comes to a mirror. An epoch ends where a snapshot stands, never beyond it: the log is read only up to there,
// and a jump goes from snapshot to snapshot and only then to the present. When the mirror has acknowledged exactly that
// position, and the snapshot is durable here, the mirror is told to keep what it shows, and nothing above is read until it
// says that it does. So a crash of either side, or of the link, between any two steps leaves the mirror at that position or below,
// and the next session tells it again; a mirror that has the snapshot already says so.
//
// The mirror keeps its own list: what is deleted here stays there, and a name that is another snapshot's there is left alone.

// next finds the snapshot that comes next in the log and that the mirror was not told yet.
func (s *shipment) next(at aodi.Position) *aodi.SnapshotInfo {
	if !s.carries {
		return nil
	}
	at = max(at, s.from.Got.Newest()) // what was shipped of a jump epoch is as of there, and cannot go back
	info := s.m.v.Info()
	end, _ := s.m.v.Pointers()
	head := Head{info.Lineage, end}
	return s.m.v.NextSnapshot(at, func(i aodi.SnapshotInfo) bool {
		return i.Size <= info.Size && !i.Astray && head.has(i.Position) && !s.m.hasCarried(i)
	})
}

// carry has the mirror keep what it shows as the snapshot at that position, up to which all was read.
func (s *shipment) carry(ctx context.Context, name string, at aodi.Position) error {
	for !s.m.standsAt(at) {
		select {
		case <-s.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	snap, err := s.m.v.SettledSnapshot(name)
	if errors.Is(err, aodi.ErrNoSnapshot) || err == nil && snap.Position != at {
		return nil // it was deleted meanwhile
	}
	if err != nil {
		return err
	}
	frame, err := wire.AppendSnapshot(nil, &wire.Snapshot{Position: at, Time: snap.Time.UnixNano(), Size: snap.Size, Name: name})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.asked = true
	s.mu.Unlock()
	select {
	case s.word <- frame:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case k := <-s.kept:
		s.m.carried(snap, k.Declined)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// heard takes the peer's answer. One that nobody has asked for is a lie.
func (s *shipment) heard(k wire.Kept) error {
	s.mu.Lock()
	asked := s.asked
	s.asked = false
	s.mu.Unlock()
	if !asked || !s.m.standsAt(k.Position) {
		return refusef(wire.CodeLied, "the peer says that it keeps a snapshot at position %d, of which it was not told", k.Position)
	}
	s.kept <- k // there is room: it was asked once, and by who waits for this
	return nil
}

// standsAt tells whether sync_ptr is p.
func (m *Mirror) standsAt(p aodi.Position) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncPtr == p
}

// hasCarried tells whether the mirror has answered for a snapshot, in this process' life: one that was deleted there is not
// made again as soon as the link comes back.
func (m *Mirror) hasCarried(s aodi.SnapshotInfo) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return s.Position == m.toldAt && slices.Contains(m.toldOf, s.Name)
}

// carried notes the mirror's answer. Only those at the mirror's position can be asked about again.
func (m *Mirror) carried(s aodi.SnapshotInfo, declined string) {
	m.mu.Lock()
	if s.Position != m.toldAt {
		m.toldAt, m.toldOf = s.Position, nil
	}
	m.toldOf, m.declined = append(m.toldOf, s.Name), ""
	if declined != "" {
		m.declined = fmt.Sprintf("@%s: %s", s.Name, declined)
	}
	m.mu.Unlock()
	if declined != "" {
		m.log.Warn("the mirror does not keep a snapshot", "snapshot", s.Name, "position", s.Position, "reason", declined)
		return
	}
	m.log.Info("snapshot mirrored", "snapshot", s.Name, "position", s.Position)
}

// heed takes a SNAPSHOT. The source has heard that all up to its position is committed, and ships nothing above until it has
// the answer.
func (f *feed) heed(r *wire.Reader) error {
	w, err := r.Snapshot()
	if err != nil {
		return f.lost(err)
	}
	k := wire.Kept{Position: w.Position}
	err = aodi.CheckSnapshotName(w.Name)
	if err == nil {
		err = f.t.v.MirrorSnapshot(aodi.SnapshotInfo{Name: w.Name, Position: w.Position, Time: time.Unix(0, w.Time), Size: w.Size})
		if err != nil && !errors.Is(err, aodi.ErrSnapshotExists) {
			return f.failed(err)
		}
	}
	if err != nil { // the copy goes on without it: data comes before names
		k.Declined = err.Error()
		f.p.log.Warn("a snapshot of the source is not kept", "name", f.t.name, "snapshot", w.Name, "position", w.Position, "reason", err)
	}
	select {
	case f.reply <- wire.AppendKept(nil, &k):
		return nil
	default:
		return refusef(wire.CodeGarbage, "mirror %q: a second SNAPSHOT before the answer to the first", f.t.name)
	}
}

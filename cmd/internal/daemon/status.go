package daemon

import (
	"runtime/metrics"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// status is the answer to `cawrm status`. Any goroutine.
func (d *daemon) status() control.Status {
	d.mu.Lock()
	list, nbd, peer, server := slices.Clone(d.list), addresses(d.sockets.nbd), addresses(d.sockets.peer), d.peer
	d.mu.Unlock()
	feeds := server.Status()
	s := control.Status{Process: process()}
	for _, v := range list {
		c := volumeStatus{v.status()}
		c.NBD, c.Peer = nbd, peer
		if v.err == nil && !v.cfg.Rescue {
			c.addFeed(v.cfg.Name, feeds, len(peer) > 0)
			fed := v.mirrors()
			for _, m := range server.Followers(v.cfg.Name) {
				if st := m.Status(); !fedElsewhere(st, fed) {
					c.Mirrors = append(c.Mirrors, mirrorStatus(st))
				}
			}
		}
		s.Volumes = append(s.Volumes, c.Volume)
	}
	return s
}

// fedElsewhere tells that a mirror which once came by itself is fed by now as one of those that have an address: it is shown as that one
// alone, and not as one that is down too.
func fedElsewhere(guest cawrm.Status, mirrors []cawrm.Status) bool {
	return guest.State == cawrm.StateDown && slices.ContainsFunc(mirrors, func(m cawrm.Status) bool {
		return m.Container == guest.Container && (m.State == cawrm.StateSyncing || m.State == cawrm.StateSynced)
	})
}

// status is what the volume says of itself.
func (v *served) status() control.Volume {
	if v.err != nil {
		return control.Volume{Name: v.cfg.Name, Path: v.cfg.Path, Role: control.RoleFailed, Error: v.err.Error()}
	}
	// Mirrors before the volume: a pointer that moves meanwhile makes the lag larger, never sync_ptr > durable_ptr.
	var mirrors []control.Mirror
	for _, m := range v.mirrors() {
		mirrors = append(mirrors, mirrorStatus(m))
	}
	st := v.volume.Status()
	c := control.Volume{
		Name:          v.cfg.Name,
		Role:          v.role(),
		Size:          st.Size,
		UsedBytes:     st.UsedBytes,
		PhysicalBytes: st.PhysicalBytes,
		EndPtr:        uint64(st.EndPtr),
		DurablePtr:    uint64(st.DurablePtr),
		Lineage:       lineage(st),
		Mirrors:       mirrors,

		Snapshots:      st.Snapshots,
		Deleting:       st.Deleting,
		Path:           st.Path,
		Direct:         st.Direct,
		ChecksumErrors: st.ChecksumErrors,
		Mended:         st.Mended,
		Recovery:       st.Recovery,
		ClosedInOrder:  st.ClosedInOrder,
	}
	if from := v.volume.HistoryFrom(); !from.IsZero() {
		c.HistoryFrom = from.UTC().Format(time.RFC3339Nano)
		c.HistorySeconds = max(0, time.Since(from).Seconds())
	}
	c.Space = v.space()
	if v.base != nil {
		c.CloneOf = v.base.cfg.Name + "@" + st.Base
	}
	if v.cfg.Rescue {
		c.Rescue = &control.Rescue{Found: v.rescued.Found, Lost: v.rescued.Lost}
	}
	if st.HasIdentity {
		c.VolumeID = st.Volume.String()
	}
	if st.Failed != nil {
		c.Error = st.Failed.Error()
	}
	return c
}

// space is how the volume's container is used.
func (v *served) space() *control.Space {
	s := v.volume.Space()
	c := &control.Space{
		CapacityBytes: s.Capacity,
		SegmentBytes:  s.SegmentBytes,
		SegmentsLimit: s.Limit,
		SegmentsUsed:  s.Used,
		SegmentsFree:  s.Free,
		UsedBytes:     int64(s.Used) * s.SegmentBytes,
		LiveBytes:     s.LiveBytes,
		GarbageBytes:  s.GarbageBytes,
		MaxLiveBytes:  s.MaxLiveBytes,
		AppendedBytes: int64(s.Logged) * format.ChunkSize,
		MovedBytes:    int64(s.Moved) * format.ChunkSize,
		WritesWaiting: s.Waiting,
	}
	if !s.Bounded {
		c.SegmentsLimit, c.SegmentsFree = 0, s.Within
	}
	if s.Logged > 0 {
		c.WriteAmplification = float64(s.Logged+s.Moved) / float64(s.Logged)
	}
	if v.cleaner != nil {
		c.SegmentsCleaned = v.cleaner.Cleaned()
	}
	return c
}

// process reads counters that the runtime keeps anyway; nothing stops for them.
func process() control.Process {
	s := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return control.Process{Goroutines: int64(s[0].Value.Uint64()), HeapBytes: int64(s[1].Value.Uint64())}
}

// volumeStatus is what the daemon tells of a volume.
type volumeStatus struct{ control.Volume }

// addFeed adds the peer's view of a volume. Who feeds it is told of a mirror, and where sources are awaited.
func (c *volumeStatus) addFeed(name string, feeds []cawrm.FeedStatus, awaited bool) {
	for _, f := range feeds {
		if f.Name != name {
			continue
		}
		c.Conflict, c.KeptTail = f.Conflict, f.Tail
		if !awaited && f.Source == "" {
			return
		}
		s := &control.Source{Connected: f.Connected, Address: f.Source, LastError: f.LastError, Identity: f.Identity}
		if !f.LastContact.IsZero() {
			s.SilentSeconds = max(0, time.Since(f.LastContact).Seconds())
		}
		c.Source = s
	}
}

func lineage(st aodi.Status) []control.Lineage {
	var l []control.Lineage
	for _, e := range st.Lineage {
		l = append(l, control.Lineage{ID: e.ID.String(), Start: uint64(e.Start)})
	}
	return l
}

func mirrorStatus(st cawrm.Status) control.Mirror {
	m := control.Mirror{
		ID:         st.ID,
		URL:        st.URL,
		State:      string(st.State),
		SyncPtr:    uint64(st.SyncPtr),
		LagRecords: st.LagRecords,
		LagBytes:   st.LagBytes,
		LagSeconds: st.LagSeconds,
		RateBPS:    st.RateBps,
		ETASeconds: st.ETASeconds,
		SentBytes:  st.SentBytes,
		Commits:    st.Commits,
		Links:      st.Links,
		LastError:  st.LastError,

		SnapshotDeclined: st.Declined,

		Settings: st.Settings.String(),
		Kept:     st.Kept,

		EpochProgress: st.Jump,

		ReferenceBytes: st.ReferenceBytes,

		DataBytes:   st.DataBytes,
		ZeroBytes:   st.ZeroBytes,
		RepeatBytes: st.RepeatBytes,
		DeltaBytes:  st.DeltaBytes,
		PackSeconds: st.PackSeconds,
		LimitBytes:  st.Limit,
		Identity:    st.Identity,
		Compression: st.Level,
	}
	m.Loose = st.Loose
	m.Mode = string(cawrm.ModeAsync)
	if st.Settings.Mode == cawrm.ModeFlush {
		m.Mode, m.Flush, m.FlushWaiting = string(cawrm.ModeFlush), st.Flush, st.FlushWaiting
		if !st.FlushSince.IsZero() {
			m.FlushSeconds = max(0, time.Since(st.FlushSince).Seconds())
		}
	}
	if !st.LastErrorAt.IsZero() {
		m.LastErrorTime = st.LastErrorAt.UTC().Format(time.RFC3339)
	}
	return m
}

package daemon

import (
	"runtime/metrics"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// status is the answer to `cawrm status`. Any goroutine.
func (d *daemon) status() control.Status {
	// Mirrors before the volume: a pointer that moves meanwhile makes the lag larger, never sync_ptr > durable_ptr.
	var mirrors []control.Mirror
	for _, m := range d.mirrors() {
		mirrors = append(mirrors, mirrorStatus(m.Status()))
	}
	st := d.volume.Status()
	v := control.Volume{
		Name:          d.cfg.Name,
		Role:          d.role(),
		Size:          st.Size,
		UsedBytes:     st.UsedBytes,
		PhysicalBytes: st.PhysicalBytes,
		EndPtr:        uint64(st.EndPtr),
		DurablePtr:    uint64(st.DurablePtr),
		Lineage:       lineage(st),
		Mirrors:       mirrors,

		Path:           st.Path,
		NBD:            addresses(d.sockets.nbd),
		Peer:           addresses(d.sockets.peer),
		Direct:         st.Direct,
		ChecksumErrors: st.ChecksumErrors,
		Recovery:       st.Recovery,
		ClosedInOrder:  st.ClosedInOrder,
	}
	if d.cfg.Rescue {
		v.Rescue = &control.Rescue{Found: d.rescued.Found, Lost: d.rescued.Lost}
	}
	if st.HasIdentity {
		v.VolumeID = st.Volume.String()
	}
	if st.Failed != nil {
		v.Error = st.Failed.Error()
	}
	if d.peer != nil {
		v.Source = source(d.peer.Status())
	}
	return control.Status{Volumes: []control.Volume{v}, Process: process()}
}

// role is the volume's, or that it is a rescue.
func (d *daemon) role() string {
	if d.cfg.Rescue {
		return control.RoleRescue
	}
	return string(d.volume.Info().Role)
}

// process reads counters that the runtime keeps anyway; nothing stops for them.
func process() control.Process {
	s := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return control.Process{Goroutines: int64(s[0].Value.Uint64()), HeapBytes: int64(s[1].Value.Uint64())}
}

// source is the peer's view of this daemon's only volume.
func source(feeds []cawrm.FeedStatus) *control.Source {
	s := &control.Source{}
	for _, f := range feeds {
		s.Connected, s.Address, s.LastError = f.Connected, f.Source, f.LastError
		if !f.LastContact.IsZero() {
			s.SilentSeconds = max(0, time.Since(f.LastContact).Seconds())
		}
	}
	return s
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
		LastError:  st.LastError,

		Settings: st.Settings.String(),
		Kept:     st.Kept,

		EpochProgress: st.Jump,
	}
	if !st.LastErrorAt.IsZero() {
		m.LastErrorTime = st.LastErrorAt.UTC().Format(time.RFC3339)
	}
	return m
}

package site

// Volume is one volume of `cawrm status --json`.
type Volume struct {
	Name          string   `json:"name"`
	Role          string   `json:"role"` // "primary" or "mirror"
	Size          int64    `json:"size"`
	UsedBytes     int64    `json:"used_bytes"`
	PhysicalBytes int64    `json:"physical_bytes"`
	EndPtr        uint64   `json:"end_ptr"`
	DurablePtr    uint64   `json:"durable_ptr"`
	Mirrors       []Mirror `json:"mirrors"`

	Process Process `json:"-"` // of the daemon that serves it
}

// Process is the daemon in `cawrm status --json`.
type Process struct {
	Goroutines int64 `json:"goroutines"`
	HeapBytes  int64 `json:"heap_bytes"`
}

// Mirror is one mirror of a volume in `cawrm status --json`.
type Mirror struct {
	ID            string   `json:"id"`
	URL           string   `json:"url"`
	State         string   `json:"state"` // connecting, syncing, synced, down
	SyncPtr       uint64   `json:"sync_ptr"`
	LagRecords    uint64   `json:"lag_records"`
	LagBytes      int64    `json:"lag_bytes"`
	LagSeconds    float64  `json:"lag_seconds"`
	EpochProgress float64  `json:"epoch_progress"`
	RateBps       float64  `json:"rate_bps"`
	ETASeconds    *float64 `json:"eta_seconds"`
	SentBytes     int64    `json:"sent_bytes"`
	LastError     string   `json:"last_error"`
	Loose         string   `json:"loose"` // of a plain NBD server: filling or following
	Flush         string   `json:"flush"` // in flush mode: ok, blocked, degraded
}

// Synced says whether the volume has mirrors and each holds all of it: the
// state says so, and the pointers agree.
func (v Volume) Synced() bool {
	for _, m := range v.Mirrors {
		if m.State != "synced" || m.SyncPtr != v.EndPtr || v.DurablePtr != v.EndPtr {
			return false
		}
	}
	return len(v.Mirrors) > 0
}

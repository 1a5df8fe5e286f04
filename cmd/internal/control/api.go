// Package control is how commands talk to a running daemon: JSON over HTTP on a unix socket.
//
//	GET  /v1/status     Status: every volume with its mirrors
//	POST /v1/COMMAND    a command's own request and answer, which the daemon registers by name (Server.Handle):
//	  mirror            MirrorRequest: add, remove, pause, resume or set a mirror
//	  sent              SentRequest: ask how far a send is
//	  verify            VerifyRequest: compare a mirror with its source, and ask how far that is
//	  gc                GCRequest: clean a volume, and ask how far that is
//	  resize            ResizeRequest: another size, or another bound of the container; Resized
//	  snapshot          SnapshotRequest: create, delete or list snapshots
//	  clone             CloneRequest: make or delete a clone of a snapshot
//	  volume            VolumeRequest: add or remove a volume; Changed
//	  plan              PlanRequest; what cawrm plan --json prints
//	  reload            read the configuration again; Changed
//	  receive           ?volume=: the request is a delta file; Received
//	GET  /v1/send       ?volume=&to=&from=&resume=&id=: the answer is a delta file; trailer Cawrm-Error says why one broke off
//
// An answer that is not 200 holds {"error": "..."}, one line for people. Who may open the socket may do
// everything; its mode is 0600. Keys are only ever added, so an older client reads a newer daemon.
//
// The package knows neither volumes nor mirrors: the daemon fills the structures below.
package control

// Status is the answer to GET /v1/status, and what `cawrm status --json` prints.
type Status struct {
	Volumes []Volume `json:"volumes"`
	Process Process  `json:"process"`
}

// Process is what the daemon itself takes; a soak watches that it does not grow.
type Process struct {
	Goroutines int64 `json:"goroutines"`
	HeapBytes  int64 `json:"heap_bytes"` // of Go objects; map pages and batches lie outside
}

// Volume is one volume. Pointers are positions in its log; ranges are half-open, so equal means drained.
type Volume struct {
	Name          string    `json:"name"`
	Role          string    `json:"role"`           // primary, mirror, rescue, or failed
	Size          int64     `json:"size"`           // logical, bytes; 0 for a mirror that no source has reached yet
	UsedBytes     int64     `json:"used_bytes"`     // logical bytes that hold data
	PhysicalBytes int64     `json:"physical_bytes"` // what the container takes of its disk
	EndPtr        uint64    `json:"end_ptr"`        // after the last record accepted
	DurablePtr    uint64    `json:"durable_ptr"`    // up to here on stable storage
	Lineage       []Lineage `json:"lineage"`        // oldest first; empty without identity
	Mirrors       []Mirror  `json:"mirrors"`        // what this volume is copied to

	VolumeID       string   `json:"volume_id,omitempty"`    // the same on every mirror of the volume
	Path           string   `json:"path"`                   // container
	NBD            []string `json:"nbd"`                    // where the export is served, host:port or unix:/path
	Peer           []string `json:"peer"`                   // where sources are awaited
	Source         *Source  `json:"source,omitempty"`       // who feeds this mirror; only where sources are awaited
	Direct         bool     `json:"direct"`                 // the log is written past the page cache
	ChecksumErrors uint64   `json:"checksum_errors"`        // reads that did not match, since the start
	Mended         uint64   `json:"mended"`                 // chunks that were mended with what another site had, since the start
	Recovery       string   `json:"recovery"`               // what opening the container found
	ClosedInOrder  bool     `json:"closed_in_order"`        // it had been, so nothing that was accepted before is gone
	Error          string   `json:"error,omitempty"`        // why the volume takes no more writes
	CloneOf        string   `json:"clone_of,omitempty"`     // of a clone: the snapshot, NAME@SNAP
	HistoryFrom    string   `json:"history_from,omitempty"` // each moment since can be read as NAME@TIME; RFC 3339
	Snapshots      int      `json:"snapshots"`              // that are kept
	Deleting       int      `json:"snapshots_deleting"`     // that were deleted and still take space
	HistorySeconds float64  `json:"history_seconds"`        // how far back the history goes; 0: nothing
	Space          *Space   `json:"space,omitempty"`        // how the container's space is used; not of one that is not open
	Rescue         *Rescue  `json:"rescue,omitempty"`       // only with the role rescue
	Conflict       string   `json:"conflict,omitempty"`     // another writable head was met: both lineages, and where they part
	KeptTail       string   `json:"kept_tail,omitempty"`    // snapshot of what only this volume had when it became a mirror again
}

// Space is how the space of a container is used.
type Space struct {
	CapacityBytes      int64   `json:"capacity_bytes"`      // that the container may take; 0: what the file system or the device has
	SegmentBytes       int64   `json:"segment_bytes"`       // segments are what is used and cleaned
	SegmentsLimit      uint64  `json:"segments_limit"`      // that fit the capacity or the device; 0: only the file system says
	SegmentsUsed       uint64  `json:"segments_used"`       // that hold something
	SegmentsFree       uint64  `json:"segments_free"`       // that can be taken; of a container that only the file system bounds, those that it has already
	UsedBytes          int64   `json:"used_bytes"`          // of used segments
	LiveBytes          int64   `json:"live_bytes"`          // data that the volume, a snapshot or the history refers to
	GarbageBytes       int64   `json:"garbage_bytes"`       // in used segments, what is neither live nor free to be written
	MaxLiveBytes       int64   `json:"max_live_bytes"`      // with more live than this, writes get ENOSPC; 0: only the file system says
	AppendedBytes      int64   `json:"appended_bytes"`      // data that clients, or the source, wrote since the start
	MovedBytes         int64   `json:"moved_bytes"`         // live data that cleaning moved since then
	SegmentsCleaned    uint64  `json:"segments_cleaned"`    // since then
	WriteAmplification float64 `json:"write_amplification"` // appended and moved for what was appended; 0 when nothing was
	WritesWaiting      int     `json:"writes_waiting"`      // for space
}

// Rescue is what is known of a damaged container, a line each. What is lost fails to be read.
type Rescue struct {
	Found []string `json:"found"`
	Lost  []string `json:"lost"`
}

// Roles of a volume beside primary and mirror.
const (
	RoleRescue = "rescue" // what is left of a damaged container, served read-only
	RoleFailed = "failed" // it could not be opened; error says why
)

// VolumeRequest changes what the daemon serves.
type VolumeRequest struct {
	Op      string   `json:"op"` // add or remove
	Name    string   `json:"name"`
	Path    string   `json:"path,omitempty"`    // add: container, absolute
	Options []Option `json:"options,omitempty"` // add: what serve takes as flags of a volume
}

// PlanRequest asks what lag to expect of a volume over lines of so many bytes a second.
type PlanRequest struct {
	Volume string  `json:"volume"`
	Rates  []int64 `json:"rates"`
}

// Option is one flag with its values, as texts.
type Option struct {
	Name  string   `json:"name"`
	Texts []string `json:"texts"`
}

// Changed answers a change of what the daemon serves.
type Changed struct {
	File string `json:"file"` // the configuration that keeps it; "" when it lasts until the daemon ends
}

// Lineage is one link of the chain that says which histories agree.
type Lineage struct {
	ID    string `json:"id"`
	Start uint64 `json:"start"` // the first position that belongs to it
}

// States of a mirror.
const (
	StateConnecting = "connecting" // not reached yet, and nothing has gone wrong yet
	StateSyncing    = "syncing"    // connected, the mirror lacks something
	StateSynced     = "synced"     // the mirror lacks nothing that is durable here
	StateDown       = "down"       // not connected, last_error says why; it is being retried
	StatePaused     = "paused"     // not connected, as somebody has asked
)

// Mirror is one mirror as its source sees it. The lag is 0 on all three scales when the mirror lacks nothing.
type Mirror struct {
	ID         string  `json:"id"`
	URL        string  `json:"url"`
	State      string  `json:"state"`
	SyncPtr    uint64  `json:"sync_ptr"` // up to here the mirror has committed
	LagRecords uint64  `json:"lag_records"`
	LagBytes   int64   `json:"lag_bytes"`
	LagSeconds float64 `json:"lag_seconds"` // age of the oldest write that the mirror lacks
	RateBPS    float64 `json:"rate_bps"`    // bits of data a second that it acknowledges, lately
	ETASeconds float64 `json:"eta_seconds"` // until the lag is gone at that rate; 0 when it is, -1 when nobody can tell
	SentBytes  int64   `json:"sent_bytes"`  // put on the wire since the daemon's start
	DataBytes  int64   `json:"data_bytes"`  // of chunks that were shipped with that, before anything was done to them
	Commits    uint64  `json:"commits"`     // acknowledged since then, each of one epoch or several
	Links      uint64  `json:"links"`       // connections since then
	LastError  string  `json:"last_error"`  // why the link was down last, kept when it is back; "" when it never was

	Settings string `json:"settings"` // KEY=VALUE ..., what differs from the defaults
	Kept     bool   `json:"kept"`     // in the volume's catalog, by mirror add; else given to serve by --mirror

	Loose string `json:"loose,omitempty"` // of a plain NBD server: filling (no point in time) or following (the source at sync_ptr after each flush)

	Mode         string  `json:"mode"`                    // async or flush
	Flush        string  `json:"flush,omitempty"`         // flush mode: ok, blocked (a flush waits longer than its timeout) or degraded (none waits)
	FlushSeconds float64 `json:"flush_seconds,omitempty"` // since when it is blocked or degraded
	FlushWaiting int     `json:"flush_waiting,omitempty"` // flushes that this mirror has not committed yet

	EpochProgress float64 `json:"epoch_progress"`            // of a jump epoch that is on its way: 0 to 1, as far as it was sent; else 0
	LastErrorTime string  `json:"last_error_time,omitempty"` // RFC 3339

	SnapshotDeclined string `json:"snapshot_declined,omitempty"` // @SNAP: why the mirror does not keep the last snapshot that it was told of

	ReferenceBytes int64 `json:"reference_bytes"` // chunks of the mirror that frames referred to, to say what is new beside them

	ZeroBytes   int64   `json:"zero_bytes"`   // of data_bytes, chunks of zeroes, which are not sent
	RepeatBytes int64   `json:"repeat_bytes"` // of data_bytes, chunks that the mirror had just got, which are not sent again
	DeltaBytes  int64   `json:"delta_bytes"`  // of data_bytes, chunks of which only the difference to what the mirror had just got was sent
	PackSeconds float64 `json:"pack_seconds"` // processor time that making the data smaller took
	LimitBytes  int64   `json:"limit_bytes"`  // that may be sent a second, by the settings and the time of day; 0: any
	Identity    string  `json:"identity"`     // what the mirror has proved to be: "certificate NAME, ..." or "secret"; "": nothing, the link is not encrypted
	Compression string  `json:"compression"`  // level of the last epoch: off, fast, default, better, best
}

// Source is a mirror's source as the mirror sees it.
type Source struct {
	Connected     bool    `json:"connected"`
	Address       string  `json:"address"`        // of the one that feeds the mirror, or did last; "" when none has
	SilentSeconds float64 `json:"silent_seconds"` // since it was heard last; 0 when it never was
	LastError     string  `json:"last_error"`     // why one was refused or lost last
	Identity      string  `json:"identity"`       // what the source has proved to be, as a mirror's
}

// RoleRequest asks for a change of a volume's role.
type RoleRequest struct {
	Volume  string  `json:"volume"`
	Op      string  `json:"op"`                // promote, demote, switchover
	Force   bool    `json:"force,omitempty"`   // promote: though the source is alive
	Discard bool    `json:"discard,omitempty"` // demote: give up what other heads lack; it stays as a snapshot
	Mirror  string  `json:"mirror,omitempty"`  // switchover: the id; "": the only one
	Near    float64 `json:"near,omitempty"`    // switchover: seconds for the mirror to come close; 0: 60
	Hold    float64 `json:"hold,omitempty"`    // switchover: seconds that writes may wait; 0: 10
}

// RoleAnswer is what a volume is afterwards.
type RoleAnswer struct {
	Volume   string    `json:"volume"`
	Role     string    `json:"role"`
	Changed  bool      `json:"changed"`  // it was not that before
	Position uint64    `json:"position"` // end_ptr
	Lineage  []Lineage `json:"lineage"`
	Mirror   string    `json:"mirror,omitempty"` // switchover: the id of the new primary
}

// MirrorRequest asks for a change of one of a volume's mirrors. The answer is empty.
type MirrorRequest struct {
	Volume   string   `json:"volume"`
	Op       string   `json:"op"` // add, remove, pause, resume, set
	ID       string   `json:"id"`
	URL      string   `json:"url,omitempty"`      // add
	Settings []string `json:"settings,omitempty"` // add, set: KEY=VALUE
}

// SnapshotRequest asks for something about snapshots. Answers: create, the Snapshot; list, a list of them; delete,
// nothing; rollback, RolledBack.
type SnapshotRequest struct {
	Volume string `json:"volume"`
	Op     string `json:"op"` // create, delete, list, rollback
	Name   string `json:"name,omitempty"`
	Force  bool   `json:"force,omitempty"` // rollback: end the connections of NBD clients
}

// Snapshot is a state of a volume that is kept.
type Snapshot struct {
	Name      string `json:"name"`
	Time      string `json:"time"`       // RFC 3339
	Position  uint64 `json:"position"`   // it holds the records below
	Size      int64  `json:"size"`       // logical, bytes
	UsedBytes int64  `json:"used_bytes"` // logical bytes that held data
}

// History is what can be read of a volume's past.
type History struct {
	Volume      string     `json:"volume"`
	Now         string     `json:"now"`                    // the daemon's clock, RFC 3339
	HistoryFrom string     `json:"history_from,omitempty"` // each moment since can be read as NAME@TIME
	Snapshots   []Snapshot `json:"snapshots"`              // oldest first
}

// CloneRequest makes a writable clone of a snapshot, or deletes one. Answers: create, the Clone; delete, nothing.
type CloneRequest struct {
	Op       string `json:"op"` // create, delete
	Volume   string `json:"volume,omitempty"`
	Snapshot string `json:"snapshot,omitempty"` // or a moment; "" is the present
	Name     string `json:"name"`               // of the clone
	Path     string `json:"path,omitempty"`     // of its container; "" is next to the volume's
}

// Clone is a writable volume that was made of a snapshot.
type Clone struct {
	Name string `json:"name"`
	Of   string `json:"of"`   // NAME@SNAP
	Path string `json:"path"` // of its container
}

// SentRequest asks how far a send is: the one whose request had this id. The answer is a SentState.
type SentRequest struct {
	Volume string `json:"volume"`
	ID     string `json:"id"`
}

// SentState is how far it is; 0 also when there is none by that id.
type SentState struct {
	Progress float64 `json:"progress"` // of what the volume is gone over for, 0 to 1
}

// VerifyRequest begins, watches or ends the comparison of a mirror with its source. The answer is a VerifyState.
type VerifyRequest struct {
	Volume string `json:"volume"`
	Mirror string `json:"mirror"`
	Op     string `json:"op"` // start, get, cancel
	Repair bool   `json:"repair,omitempty"`
}

// VerifyState is how far a comparison is, and what it has found once it is over.
type VerifyState struct {
	Running   bool         `json:"running"`
	DoneBytes int64        `json:"done_bytes"` // of the volume's address space
	Size      int64        `json:"size"`
	Error     string       `json:"error,omitempty"` // why it did not come to an end: then nothing is known
	Position  uint64       `json:"position"`        // both sites were compared as of it
	DataBytes int64        `json:"data_bytes"`      // that were read and hashed; holes are not
	Same      bool         `json:"same"`            // nothing differs, or all of it was mended
	Different []ChunkRange `json:"different"`
}

// ChunkRange is a run of chunks, of 4096 bytes each, that differ in the same way.
type ChunkRange struct {
	First  uint64 `json:"first"`
	Count  uint64 `json:"count"`
	Why    string `json:"why"` // differs, bad-at-mirror, bad-at-source, bad-at-both
	Mended bool   `json:"mended"`
	Error  string `json:"error,omitempty"` // why it was not mended
}

// GCRequest begins, watches or ends cleaning by hand. The answer is a GCState.
type GCRequest struct {
	Volume string `json:"volume"`
	Op     string `json:"op"` // start, get, cancel
}

// GCState is how far cleaning by hand is, or the last that there was.
type GCState struct {
	Running        bool   `json:"running"`
	Segments       int    `json:"segments_cleaned"`
	MovedBytes     int64  `json:"moved_bytes"`           // live data, out of these segments
	GarbageBefore  int64  `json:"garbage_bytes_before"`  // in used segments, what is neither live nor free to be written
	GarbageBytes   int64  `json:"garbage_bytes"`         // that is left
	PhysicalBefore int64  `json:"physical_bytes_before"` // what the container took of its disk
	PhysicalBytes  int64  `json:"physical_bytes"`
	Error          string `json:"error,omitempty"` // why it ended early: what was cleaned till then is
}

// ResizeRequest gives a volume another size, or its container another bound.
type ResizeRequest struct {
	Volume   string `json:"volume"`
	Size     int64  `json:"size,omitempty"`           // logical, bytes; 0: it stays
	Capacity *int64 `json:"capacity_bytes,omitempty"` // 0: none; left out: it stays
}

// Resized answers a ResizeRequest.
type Resized struct {
	SizeBefore     int64  `json:"size_before"`
	Size           int64  `json:"size"`
	CapacityBefore int64  `json:"capacity_bytes_before"`
	Capacity       int64  `json:"capacity_bytes"`
	LeastCapacity  int64  `json:"least_capacity_bytes"`  // for what is live now
	CleanFirst     string `json:"clean_first,omitempty"` // why the capacity is not that yet: more is in use, and gc may help

	Devices []string `json:"devices,omitempty"` // of this kernel, that have the new size already; the client adds them
}

// Received is what became of a delta file.
type Received struct {
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot"`
	Position uint64 `json:"position"` // of the snapshot, which the mirror shows now
	Bytes    int64  `json:"bytes"`    // of the file
	Chunks   int64  `json:"chunks"`   // of 4096 bytes, that were new to the mirror
	Nothing  bool   `json:"nothing"`  // it stood there already
}

// RolledBack tells what became of what a volume held before it was rolled back.
type RolledBack struct {
	Kept string `json:"kept"` // NAME@SNAP
}

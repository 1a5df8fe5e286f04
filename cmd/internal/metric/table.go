package metric

import (
	"cawrm/cmd/internal/control"
	"cawrm/nbdsrv"
)

// row is one metric. A row of many makes one value of each thing that it is told of.
type row[T any] struct {
	name, help string
	value      func(T) float64
}

// Counters end in _total, all else are gauges.
var volumeRows = []row[control.Volume]{
	{"cawrm_volume_failed", "1 when the volume could not be opened, or takes no more writes because its disk failed.",
		func(v control.Volume) float64 { return boolean(v.Error != "") }},
	{"cawrm_volume_size_bytes", "Logical size.", func(v control.Volume) float64 { return float64(v.Size) }},
	{"cawrm_volume_used_bytes", "Logical bytes that hold data.", func(v control.Volume) float64 { return float64(v.UsedBytes) }},
	{"cawrm_volume_physical_bytes", "What the container takes of its disk.", func(v control.Volume) float64 { return float64(v.PhysicalBytes) }},
	{"cawrm_end_ptr", "Position after the last record accepted.", func(v control.Volume) float64 { return float64(v.EndPtr) }},
	{"cawrm_durable_ptr", "Position up to which the log is on stable storage.", func(v control.Volume) float64 { return float64(v.DurablePtr) }},
	{"cawrm_volume_checksum_errors_total", "Reads that did not match their checksum; none was answered with data.",
		func(v control.Volume) float64 { return float64(v.ChecksumErrors) }},
	{"cawrm_volume_mended_chunks_total", "Chunks that did not match and were written anew with what another site had.",
		func(v control.Volume) float64 { return float64(v.Mended) }},
	{"cawrm_snapshots", "Snapshots that are kept.", func(v control.Volume) float64 { return float64(v.Snapshots) }},
	{"cawrm_snapshots_deleting", "Snapshots that were deleted and still take space.", func(v control.Volume) float64 { return float64(v.Deleting) }},
	{"cawrm_history_seconds", "How far back the history goes; 0 when none is kept.", func(v control.Volume) float64 { return v.HistorySeconds }},
	{"cawrm_volume_recovered", "1 when opening the volume had to recover it, 0 when it had been closed in order.",
		func(v control.Volume) float64 { return boolean(!v.ClosedInOrder && v.Role != control.RoleFailed) }},
}

// spaceRows are of a volume that is open.
var spaceRows = []row[control.Space]{
	{"cawrm_space_capacity_bytes", "What the container may take; 0: what the file system or the device has.",
		func(s control.Space) float64 { return float64(s.CapacityBytes) }},
	{"cawrm_space_used_bytes", "Segments of the container that hold something.", func(s control.Space) float64 { return float64(s.UsedBytes) }},
	{"cawrm_space_live_bytes", "Data that the volume, a snapshot or the history refers to.", func(s control.Space) float64 { return float64(s.LiveBytes) }},
	{"cawrm_space_max_live_bytes", "With more live data than this, writes get ENOSPC; 0 where only the file system says.",
		func(s control.Space) float64 { return float64(s.MaxLiveBytes) }},
	{"cawrm_space_garbage_bytes", "In used segments, what is neither live nor free to be written.", func(s control.Space) float64 { return float64(s.GarbageBytes) }},
	{"cawrm_space_free_bytes", "Segments that can be taken; of a container that only the file system bounds, those that it has already.",
		func(s control.Space) float64 { return float64(s.SegmentsFree) * float64(s.SegmentBytes) }},
	{"cawrm_space_waiting_writes", "Writes that wait for space.", func(s control.Space) float64 { return float64(s.WritesWaiting) }},
	{"cawrm_gc_appended_bytes_total", "Data that clients, or the source, wrote.", func(s control.Space) float64 { return float64(s.AppendedBytes) }},
	{"cawrm_gc_moved_bytes_total", "Live data that cleaning moved. Write amplification is both together for what was appended.",
		func(s control.Space) float64 { return float64(s.MovedBytes) }},
	{"cawrm_gc_cleaned_segments_total", "Segments that were cleaned.", func(s control.Space) float64 { return float64(s.SegmentsCleaned) }},
}

// sourceRows are of a volume that awaits sources.
var sourceRows = []row[control.Source]{
	{"cawrm_source_connected", "1 while a source feeds this mirror.", func(s control.Source) float64 { return boolean(s.Connected) }},
	{"cawrm_source_silent_seconds", "Time since the source was heard last; 0 when it never was.",
		func(s control.Source) float64 { return s.SilentSeconds }},
}

var mirrorRows = []row[control.Mirror]{
	{"cawrm_sync_ptr", "Position up to which the mirror has committed.", func(m control.Mirror) float64 { return float64(m.SyncPtr) }},
	{"cawrm_mirror_up", "1 while the mirror is connected.",
		func(m control.Mirror) float64 {
			return boolean(m.State == control.StateSynced || m.State == control.StateSyncing)
		}},
	{"cawrm_mirror_paused", "1 while somebody has paused the mirror.", func(m control.Mirror) float64 { return boolean(m.State == control.StatePaused) }},
	{"cawrm_mirror_lag_records", "Records that the mirror lacks.", func(m control.Mirror) float64 { return float64(m.LagRecords) }},
	{"cawrm_mirror_lag_bytes", "Bytes written that the mirror lacks.", func(m control.Mirror) float64 { return float64(m.LagBytes) }},
	{"cawrm_mirror_lag_seconds", "Age of the oldest write that the mirror lacks; 0 when it lacks none.", func(m control.Mirror) float64 { return m.LagSeconds }},
	{"cawrm_mirror_acknowledged_bytes_per_second", "Data that the mirror acknowledges, lately.", func(m control.Mirror) float64 { return m.RateBPS / 8 }},
	{"cawrm_mirror_eta_seconds", "Time until the lag is gone at that rate; 0 when it is, -1 when nobody can tell.",
		func(m control.Mirror) float64 { return m.ETASeconds }},
	{"cawrm_mirror_epoch_progress_ratio", "Of a jump epoch that is on its way: as far as it was sent, 0 to 1.",
		func(m control.Mirror) float64 { return m.EpochProgress }},
	{"cawrm_mirror_sent_bytes_total", "Bytes put on the wire.", func(m control.Mirror) float64 { return float64(m.SentBytes) }},
	{"cawrm_mirror_data_bytes_total", "Chunks shipped with that, before anything was done to make them smaller.",
		func(m control.Mirror) float64 { return float64(m.DataBytes) }},
	{"cawrm_mirror_zero_bytes_total", "Of these, chunks of zeroes, which are not sent.", func(m control.Mirror) float64 { return float64(m.ZeroBytes) }},
	{"cawrm_mirror_repeated_bytes_total", "Of these, chunks that the mirror had just got, which are not sent again.",
		func(m control.Mirror) float64 { return float64(m.RepeatBytes) }},
	{"cawrm_mirror_delta_bytes_total", "Of these, chunks of which only the difference to what the mirror had just got was sent.",
		func(m control.Mirror) float64 { return float64(m.DeltaBytes) }},
	{"cawrm_mirror_reference_bytes_total", "Chunks that the mirror had, and that frames referred to, to say what is new beside them.",
		func(m control.Mirror) float64 { return float64(m.ReferenceBytes) }},
	{"cawrm_mirror_pack_seconds_total", "Processor time that making them smaller took.", func(m control.Mirror) float64 { return m.PackSeconds }},
	{"cawrm_mirror_commits_total", "Commits that the mirror acknowledged, each of one epoch or several.", func(m control.Mirror) float64 { return float64(m.Commits) }},
	{"cawrm_mirror_links_total", "Connections that the mirror welcomed.", func(m control.Mirror) float64 { return float64(m.Links) }},
}

// nbdRows are of all NBD addresses of the daemon together.
var nbdRows = []row[nbdsrv.Stats]{
	{"cawrm_nbd_connections", "Connections of clients.", func(s nbdsrv.Stats) float64 { return float64(s.Connections) }},
	{"cawrm_nbd_accepted_connections_total", "Connections let in.", func(s nbdsrv.Stats) float64 { return float64(s.Accepted) }},
	{"cawrm_nbd_refused_connections_total", "Connections closed because there were too many.", func(s nbdsrv.Stats) float64 { return float64(s.Refused + s.Dropped) }},
	{"cawrm_nbd_stalled_connections_total", "Connections closed because their client did not get on.", func(s nbdsrv.Stats) float64 { return float64(s.Stalled) }},
	{"cawrm_nbd_read_bytes_total", "Bytes read by clients.", func(s nbdsrv.Stats) float64 { return float64(s.ReadBytes) }},
	{"cawrm_nbd_written_bytes_total", "Bytes written by clients.", func(s nbdsrv.Stats) float64 { return float64(s.WrittenBytes) }},
	{"cawrm_nbd_error_replies_total", "Requests answered with an error.", func(s nbdsrv.Stats) float64 { return float64(s.Errors) }},
	{"cawrm_nbd_inflight_bytes", "Payloads held now.", func(s nbdsrv.Stats) float64 { return float64(s.InflightBytes) }},
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

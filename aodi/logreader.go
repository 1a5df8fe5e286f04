package aodi

import (
	"errors"
	"fmt"
	"io"
	"time"

	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// ErrHistoryGone is returned for records below history_floor: superseded ones among them may be gone.
var ErrHistoryGone = errors.New("the log is not complete any more from that position on")

// LogBatch is a run of records in the order of the log: positions [First, End). With Jump it is a part of what a Cut ships
// for that range.
type LogBatch struct {
	First, End Position
	Time       int64          // when the first of them was accepted, unix nanoseconds
	Entries    []format.Entry // kinds data, discard, zero
	Data       []byte         // one chunk for each data entry, in order
	Jump       bool
}

// LogReader reads the log in order from a position on. It holds no lock and nothing back; one goroutine uses it.
type LogReader struct {
	v     *Volume
	pos   Position
	seg   uint32
	chunk uint32 // of the header of the batch that holds pos, or of the one after the log's end
	found bool   // seg and chunk are set
	last  recovery.Place
	seq   uint64 // of the header that was read last, at last
	hdr   format.BatchHeader
	block []byte
	win   []byte // bytes of the container from winAt on, read ahead
	winAt int64
	ahead int // bytes of a read that goes on in order
}

// readAhead is how much of the log is read with one request when it is not in memory.
const readAhead = 1 << 20

// ReadLog starts at from, which must be at most end_ptr.
func (v *Volume) ReadLog(from Position) (*LogReader, error) {
	if end := v.shown(); from > end {
		return nil, fmt.Errorf("%s: position %d lies beyond end_ptr %d", v.d.Name(), from, end)
	}
	return &LogReader{v: v, pos: from, block: make([]byte, chunkSize), ahead: readAhead}, nil
}

// Position is the position of the next record.
func (r *LogReader) Position() Position { return r.pos }

// Close releases the reader's memory.
func (r *LogReader) Close() { r.win, r.block = nil, nil }

// Next fills b, reusing its slices, with the records from the reader's position up to limit, which must be at most
// durable_ptr; it stops after the batch with which it has maxBytes of data. Checksums are verified.
// Errors: io.EOF when the position is limit; ErrHistoryGone; *CorruptError; the disk's.
func (r *LogReader) Next(limit Position, maxBytes int, b *LogBatch) error {
	from := r.pos
	err := r.next(limit, maxBytes, b)
	if from < r.v.HistoryFloor() { // asked afterwards: what was read may have been given to something else already
		r.pos = from // nobody has got what was read
		return fmt.Errorf("%w: %d, history_floor is %d", ErrHistoryGone, from, r.v.HistoryFloor())
	}
	return err
}

func (r *LogReader) next(limit Position, maxBytes int, b *LogBatch) error {
	*b = LogBatch{First: r.pos, End: r.pos, Entries: b.Entries[:0], Data: b.Data[:0]}
	if r.pos >= limit {
		return io.EOF
	}
	for r.pos < limit && len(b.Data) < maxBytes && len(b.Entries) < maxBatchEntries {
		ok, err := r.fromMemory(limit, b)
		if err == nil && !ok {
			err = r.fromDisk(limit, b)
		}
		if err != nil {
			return err
		}
		b.End = r.pos
		if b.End-b.First > Position(len(b.Entries)) {
			break // a promotion's gap ends a run
		}
	}
	return nil
}

// maxBatchEntries bounds the entries of one LogBatch, as records without data have no bytes that would.
const maxBatchEntries = 4096

// take copies the records of one batch that lie in [pos, limit) and moves the position on.
func (r *LogReader) take(h *format.BatchHeader, data []byte, limit Position, b *LogBatch) error {
	if len(b.Entries) == 0 {
		b.Time = h.Time
	}
	first, last := 0, 0 // data chunks before pos, and before limit
	pos := h.First
	for _, e := range h.Entries {
		if pos >= limit {
			break
		}
		if pos < r.pos && e.Kind == format.KindData {
			first++
		}
		if e.Kind == format.KindData {
			last++
		}
		if pos >= r.pos {
			b.Entries = append(b.Entries, e)
		}
		pos++
	}
	if all := h.First + Position(len(h.Entries)); pos == all && h.End > all && h.End <= limit {
		pos = h.End // no record has the positions between
	}
	at := len(b.Data)
	b.Data = append(b.Data, data[first*chunkSize:last*chunkSize]...)
	r.pos = pos
	i := len(b.Entries)
	for end := len(b.Data); end > at; end -= chunkSize { // entries of this batch are the last ones, data backwards
		for i--; b.Entries[i].Kind != format.KindData; i-- {
		}
		if format.Sum(b.Data[end-chunkSize:end]) != b.Entries[i].CRC {
			r.v.corrupt.Add(1)
			return &CorruptError{Disk: r.v.d.Name(), What: "chunk", LBA: b.Entries[i].LBA, Offset: int64(r.v.geo.Phys(r.seg, r.chunk)) * chunkSize}
		}
	}
	return nil
}

// fromMemory takes the records from a batch that is still resident.
func (r *LogReader) fromMemory(limit Position, b *LogBatch) (bool, error) {
	v := r.v
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for i := len(v.resident) - 1; i >= 0; i-- {
		m := v.resident[i]
		if !m.written.Load() || r.pos < m.hdr.First || r.pos >= m.hdr.End || m.hdr.Flags&format.FlagJump != 0 || v.foreignLocked(&m.hdr) {
			continue // an open batch's header is its writer's; what is durable was written
		}
		r.seg, r.chunk, r.found = m.segment, m.chunk, true
		if err := r.take(&m.hdr, m.buf[chunkSize:int(m.hdr.Chunks())*chunkSize], limit, b); err != nil {
			return false, err
		}
		if r.pos >= m.hdr.End {
			r.chunk += m.hdr.Chunks()
			r.hdr = format.BatchHeader{Next: m.hdr.Next, Entries: r.hdr.Entries[:0]}
		}
		return true, nil
	}
	return false, nil
}

// fromDisk takes them from the container.
func (r *LogReader) fromDisk(limit Position, b *LogBatch) error {
	if !r.found {
		if err := r.locate(); err != nil {
			return err
		}
	}
	if err := r.batchHeader(); err != nil {
		return err
	}
	off := int64(r.v.geo.Phys(r.seg, r.chunk)+1) * chunkSize
	data, err := r.bytes(off, int(r.hdr.Data)*chunkSize)
	if err != nil {
		return err
	}
	before := r.pos
	if err := r.take(&r.hdr, data, limit, b); err != nil {
		return err
	}
	if r.pos <= before {
		return fmt.Errorf("%s: the batch before byte %d does not hold position %d; run `cawrm check`", r.v.d.Name(), off, before)
	}
	if r.pos >= r.hdr.End {
		r.chunk += r.hdr.Chunks()
	}
	return nil
}

// batchHeader finds the batch that holds the position.
func (r *LogReader) batchHeader() error {
	for {
		if err := r.header(); err != nil {
			return err
		}
		// What a jump epoch brought is not in the order of the log, and lies below the floor, or was given up.
		if r.pos < r.hdr.End && r.hdr.Flags&format.FlagJump == 0 && !r.v.foreign(&r.hdr) {
			return nil
		}
		r.chunk += r.hdr.Chunks()
	}
}

// foreign tells whether a batch has records at positions that the volume's history has none at: of an old source, beyond the place
// of a promotion. An epoch of them that was given up is in the log all the same, before what took its place. Elsewhere what was
// given up comes again as it was, so that either does.
func (v *Volume) foreign(h *format.BatchHeader) bool {
	if h.Flags&format.FlagCommit != 0 { // was not given up
		return false
	}
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return v.foreignLocked(h)
}

func (v *Volume) foreignLocked(h *format.BatchHeader) bool {
	if len(h.Entries) == 0 || h.Flags&format.FlagCommit != 0 {
		return false
	}
	last := h.First + Position(len(h.Entries)) - 1
	for i, l := range v.catalog.Lineage {
		if i > 0 && last >= l.Start && last>>termBits == l.Start>>termBits { // the link goes on in a term beyond
			return true
		}
	}
	return false
}

// nextEntries returns the entries of one more batch, valid until the next call, and moves on over it. It must not be called
// at or beyond durable_ptr.
func (r *LogReader) nextEntries() ([]format.Entry, error) {
	if !r.found {
		if err := r.locate(); err != nil {
			return nil, err
		}
	}
	if err := r.batchHeader(); err != nil {
		return nil, err
	}
	entries := r.hdr.Entries
	if n := r.pos - r.hdr.First; n < Position(len(entries)) {
		entries = entries[n:]
	}
	r.pos = r.hdr.End
	r.chunk += r.hdr.Chunks()
	return entries, nil
}

// header reads the header at the reader's place, following the log into its next segment.
func (r *LogReader) header() error {
	again := r.last == recovery.Place{Segment: r.seg, Chunk: r.chunk}
	if !recovery.Fits(r.v.geo, r.chunk) {
		r.seg, r.chunk = r.hdr.Next, 0
	}
	off := int64(r.v.geo.Phys(r.seg, r.chunk)) * chunkSize
	p, err := r.bytes(off, chunkSize)
	if err != nil {
		return err
	}
	if err := r.hdr.Decode(p); err != nil {
		return fmt.Errorf("%s: batch header at byte %d, wanted for position %d: %w; run `cawrm check`", r.v.d.Name(), off, r.pos, err)
	}
	if r.hdr.First > r.pos && !r.v.foreign(&r.hdr) || r.hdr.Tag != r.v.tag {
		return fmt.Errorf("%s: batch at byte %d begins at position %d, beyond %d; run `cawrm check`", r.v.d.Name(), off, r.hdr.First, r.pos)
	}
	// The log only goes forward: what an earlier life left in a damaged place could lead round in a circle.
	if r.hdr.Kind != format.BatchLog || !again && r.hdr.Seq <= r.seq {
		return fmt.Errorf("%s: batch %d at byte %d does not follow batch %d; run `cawrm check`", r.v.d.Name(), r.hdr.Seq, off, r.seq)
	}
	r.last, r.seq = recovery.Place{Segment: r.seg, Chunk: r.chunk}, r.hdr.Seq
	return nil
}

// bytes returns n bytes of the container at off, reading ahead. What was read ahead is used only below the end that the
// log had then: a batch that was not written yet must not be remembered.
func (r *LogReader) bytes(off int64, n int) ([]byte, error) {
	if off < r.winAt || off+int64(n) > r.winAt+int64(len(r.win)) {
		want := int64(max(n, r.ahead))
		want = min(want, r.v.writtenEnd(r.seg)-off)
		if want < int64(n) {
			return nil, fmt.Errorf("%s: the log ends before byte %d; run `cawrm check`", r.v.d.Name(), off+int64(n))
		}
		if int64(cap(r.win)) < want {
			r.win = make([]byte, max(want, int64(r.ahead)))
		}
		r.win, r.winAt = r.win[:want], off
		if err := r.v.d.ReadAt(r.win, off); err != nil {
			r.win = r.win[:0]
			return nil, err
		}
	}
	return r.win[off-r.winAt : off-r.winAt+int64(n)], nil
}

// writtenEnd is the byte up to which a segment of the log is surely written. Writes of the segment before the head's can
// be under way still.
func (v *Volume) writtenEnd(seg uint32) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	chunk := v.geo.Slots()
	if seg == v.head.Segment {
		chunk = v.head.Chunk
	}
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for _, b := range v.resident {
		if b.segment == seg && !b.written.Load() {
			chunk = min(chunk, b.chunk)
		}
	}
	return int64(v.geo.Phys(seg, chunk)) * chunkSize
}

// locate finds the segment that holds the position: the log segment with the least end above it. The segment that is
// open has no end yet and holds what no sealed one does.
func (r *LogReader) locate() error {
	v := r.v
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	best, bestEnd := v.shownSegment, Position(1<<64-1)
	for seg := range uint32(v.segs.count) {
		row, err := v.segs.row(seg)
		if err != nil {
			return err
		}
		if row.Kind == format.BatchLog && row.State == format.SegmentSealed && row.MaxPosition > r.pos && row.MaxPosition < bestEnd {
			best, bestEnd = seg, row.MaxPosition
		}
	}
	r.seg, r.chunk, r.found, r.seq = best, 0, true, 0
	return nil
}

// Mark says, of a position, how much data the log took before it and when the record there was accepted.
type Mark struct {
	Position Position
	Bytes    int64
	Time     time.Time // zero at end_ptr: there is no record yet
}

// MarkAt finds the mark of a position, reading the log if need be. Below history_floor nobody knows it any more: then it is
// the mark of the oldest record that is still there, so that Bytes and Time are at least so old. Errors: beyond end_ptr; the disk's.
func (v *Volume) MarkAt(p Position) (Mark, error) {
	if end := v.EndMark(); p == end.Position {
		return end, nil
	}
	if m, ok := v.markInMemory(p); ok {
		return m, nil
	}
	at := max(p, v.HistoryFloor())
	if end := v.EndMark(); p > end.Position {
		return Mark{}, fmt.Errorf("%s: position %d lies beyond end_ptr %d", v.d.Name(), p, end.Position)
	} else if at >= end.Position {
		return Mark{Position: p, Bytes: end.Bytes, Time: v.opened}, nil
	}
	r, err := v.ReadLog(at)
	if err != nil {
		return Mark{}, err
	}
	defer r.Close()
	if err := r.locate(); err != nil {
		return Mark{}, err
	}
	if err := r.batchHeader(); err != nil {
		return Mark{}, err
	}
	m := markIn(&r.hdr, at)
	m.Position = p
	return m, nil
}

func markIn(h *format.BatchHeader, p Position) Mark {
	m := Mark{Position: p, Bytes: int64(h.Logged) * chunkSize, Time: time.Unix(0, h.Time)}
	for _, e := range h.Entries[:min(p-h.First, Position(len(h.Entries)))] {
		if e.Kind == format.KindData {
			m.Bytes += chunkSize
		}
	}
	return m
}

// markInMemory looks among the batches that are resident, the open one included.
func (v *Volume) markInMemory(p Position) (Mark, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for _, b := range v.resident {
		if p >= b.hdr.First && p < b.hdr.First+Position(len(b.hdr.Entries)) {
			return markIn(&b.hdr, p), true
		}
	}
	return Mark{}, false
}

// EndMark is the mark of end_ptr.
func (v *Volume) EndMark() Mark {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.Role() == RoleMirror {
		v.mapMu.RLock()
		defer v.mapMu.RUnlock()
		return Mark{Position: v.shown(), Bytes: int64(v.shownLogged) * chunkSize}
	}
	return Mark{Position: v.logEnd, Bytes: int64(v.logged) * chunkSize}
}

package aodi

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"cawrm/aodi/format"
)

// A Cut is the volume's content at End, as far as it differs from that at From: what a jump epoch ships. Each chunk that
// was born in [From, End) comes once, in its newest content as of End, in the order of logical chunks, and after that
// what was discarded or zeroed. An epoch that was interrupted goes on with a newer cut: of the chunks that the mirror has got
// as of an older one, only those that were written since come. It reads the pages of a checkpoint, which are immutable, so it takes no lock of the
// volume's and sees nothing of what is written meanwhile. Until it is closed, the segments that it can need are not freed
// (hold); newer ones are.
//
// A chunk's birth stands in the inverse map of its segment. Segments that hold nothing from From on are not looked at.
type Cut struct {
	From, End Position
	Bytes     int64 // data that the log took before End, as in Mark
	Time      int64 // of the cut, unix nanoseconds

	v         *Volume
	hold      *hold
	fwd, segs tree
	log       format.LogPlace // of the head at End
	cold      format.LogPlace // of the cold head, its segment and chunk
	chunks    uint64          // of the volume
	gone      ranges          // what may have to be discarded or zeroed
	also      ranges          // whatever their age, these are shipped: the mirror has something else there
	first     Position        // where the mirror stands, and the epoch begins: at From, or beyond it on a branch of its own
	fresh     bool            // the mirror holds nothing yet: holes need not be shipped
	got       format.Reached  // what the mirror has of an epoch that was interrupted
	sized     bool            // the size was told
	dataDone  bool            // the pass over data is over, that over gone goes on
	at        uint64          // next logical chunk of the pass
	range_    int             // next of gone
	births    map[uint32][]format.Entry
}

// birthCache bounds the inverse maps in memory: 48 KiB each with segments of 8 MiB.
const birthCache = 1024

// ErrCutGone is returned by a cut whose chunks were freed, because writes needed the space. A newer one goes on where it stopped.
var ErrCutGone = errors.New("the cut was given up: its space was needed")

// CutFrom says what a mirror has got already.
type CutFrom struct {
	Position Position
	Fresh    bool           // it holds nothing
	Got      format.Reached // of an epoch that was interrupted
	Snapshot string         // the cut is to be that snapshot; "": the present

	// A mirror that went its own way stands at Position, and since Fork has written in Ranges what this volume has not.
	Diverged bool
	Fork     Position
	Ranges   []Range
}

// OpenCut writes a checkpoint and opens a cut there, or at an earlier snapshot. Any goroutine; the cut belongs to one. Errors:
// ErrNoSnapshot; the volume's failure, ENOSPC, the disk's.
func (v *Volume) OpenCut(from CutFrom) (*Cut, error) {
	c, err := v.newCut(from)
	if err != nil {
		return nil, err
	}
	if c.gone, err = c.findGone(); err != nil {
		c.Close()
		return nil, fmt.Errorf("discards from %d on: %w", c.From, err)
	}
	c.gone = append(c.gone, c.also...).merged()
	return c, nil
}

func (v *Volume) newCut(from CutFrom) (*Cut, error) {
	v.ckpt.run.take() // no other checkpoint frees anything before the hold is there
	defer v.ckpt.run.give()
	f, err := v.checkpointLocked(0, nil, nil)
	if err != nil {
		return nil, err
	}
	m := &f.meta
	c := &Cut{From: from.Position, first: from.Position, fresh: from.Fresh, got: slices.Clone(from.Got), End: m.Position, Bytes: int64(m.Logged) * chunkSize, Time: m.Time, v: v, log: m.Log, cold: format.LogPlace{Segment: m.ColdSegment, Chunk: m.ColdChunk},
		chunks: uint64(m.Size) / chunkSize, births: map[uint32][]format.Entry{},
		hold: &hold{from: from.Position, young: map[uint32]bool{}, yields: true},
		fwd:  tree{id: treeMap, pages: v.pages, root: m.MapRoot, height: int(m.MapHeight)},
		segs: tree{id: treeSegment, pages: v.pages, root: m.SegRoot, height: int(m.SegHeight)}}
	if from.Diverged {
		c.From, c.hold.from, c.fresh = from.Fork, 0, false
		for _, r := range from.Ranges {
			c.also = append(c.also, span{r.First, min(r.End, c.chunks)})
		}
		c.also = c.also.merged()
	}
	if from.Snapshot != "" {
		if err := c.moveTo(from.Snapshot, f.catalog.Snapshots); err != nil {
			return nil, err
		}
	}
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.segs.holds = append(v.segs.holds, c.hold)
	return c, nil
}

// moveTo makes it a cut at a snapshot. What that leads to has its births in the segments as they are now: the checkpoint's
// table of them holds, and its pages are among those that the hold keeps, also when the snapshot is deleted meanwhile.
func (c *Cut) moveTo(name string, all []format.Snapshot) error {
	for _, s := range all {
		if s.Name == name && s.Flags&format.FlagDeleting == 0 {
			c.End, c.Bytes, c.Time, c.chunks = s.Position, int64(s.Logged)*chunkSize, s.Time, uint64(s.Size)/chunkSize
			c.fwd.root, c.fwd.height = s.Root, int(s.Height)
			return nil
		}
	}
	return fmt.Errorf("%s@%s: %w", c.v.d.Name(), name, ErrNoSnapshot)
}

// Close lets what the cut has held be freed.
func (c *Cut) Close() {
	c.v.mapMu.Lock()
	defer c.v.mapMu.Unlock()
	c.v.unholdLocked(c.hold)
}

func (v *Volume) unholdLocked(h *hold) {
	v.segs.chance()
	v.segs.holds = slices.DeleteFunc(v.segs.holds, func(x *hold) bool { return x == h })
}

// findGone finds the ranges in which something may have to be discarded or zeroed: where the log is complete from From on,
// those of its records; else all that there is.
func (c *Cut) findGone() (ranges, error) {
	if c.From < c.v.HistoryFloor() || c.fresh {
		return ranges{{0, c.chunks}}, nil
	}
	r, err := c.v.ReadLog(c.From)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	r.ahead = headerAhead
	var g ranges
	for r.pos < c.End {
		entries, err := r.nextEntries()
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Kind == format.KindDiscard || e.Kind == format.KindZero || e.Kind == format.KindSize { // a loose target may hold anything there
				g = append(g, span{e.LBA, e.LBA + uint64(e.Count)})
			}
		}
		if len(g) > maxGone {
			if g = g.merged(); len(g) > maxGone/2 {
				return ranges{{0, c.chunks}}, nil
			}
		}
	}
	return g.merged(), nil
}

// headerAhead is what is read with a header, bytes: of large batches little is wanted, of small ones the next headers.
const headerAhead = 32 << 10

// maxGone bounds the ranges in memory, 16 bytes each.
const maxGone = 1 << 20

// Next fills b, reusing its slices, with further records of the cut, until it has maxBytes of data. b.Jump is set and
// [b.First, b.End) leads from where the mirror stands to End. Errors: io.EOF when there are no more; ErrCutGone; *CorruptError; the disk's.
func (c *Cut) Next(maxBytes int, b *LogBatch) error {
	err := c.next(maxBytes, b)
	if c.hold.gone.Load() { // asked afterwards: what was read may have been given to something else already
		return ErrCutGone
	}
	return err
}

func (c *Cut) next(maxBytes int, b *LogBatch) error {
	*b = LogBatch{First: c.first, End: c.End, Time: c.Time, Jump: true, Entries: b.Entries[:0], Data: b.Data[:0]}
	if !c.sized && c.chunks > 0 { // first, and by itself: what follows may lie beyond the size that the mirror has
		c.sized = true
		b.Entries = append(b.Entries, format.Entry{Birth: c.End - 1, LBA: c.chunks - 1, Kind: format.KindSize, Count: 1})
		return nil
	}
	for !c.dataDone && len(b.Data) < maxBytes && len(b.Entries) < maxBatchEntries {
		if err := c.nextLeaf(b, maxBytes); err != nil {
			return err
		}
		if c.at >= c.chunks {
			c.dataDone, c.at = true, 0
			if len(b.Entries) > 0 {
				return nil // each batch is in the order of logical chunks
			}
		}
	}
	for c.dataDone && c.range_ < len(c.gone) && len(b.Entries) < maxBatchEntries {
		if err := c.nextGone(b); err != nil {
			return err
		}
	}
	if len(b.Entries) == 0 && c.dataDone && c.range_ >= len(c.gone) {
		return io.EOF
	}
	return nil
}

// Progress tells how much of the volume's address space the cut has gone over, 0 to 1.
func (c *Cut) Progress() float64 {
	if c.dataDone || c.chunks == 0 {
		return 1
	}
	return float64(c.at) / float64(c.chunks)
}

// nextGone adds the next run of chunks of the current range that are holes, or zeroes, at End.
func (c *Cut) nextGone(b *LogBatch) error {
	g := c.gone[c.range_]
	if c.at = max(c.at, g.first); c.at >= g.end {
		c.range_++
		return nil
	}
	end, kind, err := c.run(c.at, min(g.end, c.at+1<<32-1))
	if err != nil {
		return err
	}
	if kind == format.KindZero || kind == format.KindDiscard && !c.fresh {
		b.Entries = append(b.Entries, format.Entry{Birth: c.End - 1, LBA: c.at, Kind: kind, Count: uint32(end - c.at)})
	}
	c.at = end
	return nil
}

// run returns how far, below limit, the chunks from lba on are all holes, all zeroes or all data.
func (c *Cut) run(lba, limit uint64) (uint64, format.Kind, error) {
	index := lba / format.RefsPerPage
	at, leaf, err := c.fwd.next(index, (limit+format.RefsPerPage-1)/format.RefsPerPage)
	if err != nil {
		return 0, 0, err
	}
	if at > index {
		return min(limit, at*format.RefsPerPage), format.KindDiscard, nil
	}
	kind := kindOf(refAt(leaf, lba%format.RefsPerPage))
	for lba++; lba < limit && lba%format.RefsPerPage != 0; lba++ {
		if kindOf(refAt(leaf, lba%format.RefsPerPage)) != kind {
			break
		}
	}
	return lba, kind, nil
}

func kindOf(r ref) format.Kind {
	switch {
	case r == format.Unmapped:
		return format.KindDiscard
	case !r.HasData():
		return format.KindZero
	}
	return format.KindData
}

// nextLeaf adds chunks of the leaf that holds chunk at, or of the next one that exists.
func (c *Cut) nextLeaf(b *LogBatch, maxBytes int) error {
	index, leaf, err := c.fwd.next(c.at/format.RefsPerPage, (c.chunks+format.RefsPerPage-1)/format.RefsPerPage)
	if err != nil {
		return err
	}
	c.at = max(c.at, index*format.RefsPerPage)
	for stop := (index + 1) * format.RefsPerPage; c.at < stop && c.at < c.chunks; {
		if len(b.Data) >= maxBytes || len(b.Entries) >= maxBatchEntries {
			return nil
		}
		n, err := c.takeRun(b, leaf, min(stop-c.at, uint64(max(1, (maxBytes-len(b.Data))/chunkSize))))
		if err != nil {
			return err
		}
		c.at += n
	}
	return nil
}

// takeRun adds the chunks from at on that lie one after the other, at most limit, and were all born in [From, End), read
// with one request. It returns how many chunks it went over.
func (c *Cut) takeRun(b *LogBatch, leaf []byte, limit uint64) (uint64, error) {
	first := refAt(leaf, c.at%format.RefsPerPage)
	n := uint64(0)
	for n < limit && (c.at+n)%format.RefsPerPage >= c.at%format.RefsPerPage {
		r := refAt(leaf, (c.at+n)%format.RefsPerPage)
		if n > 0 && r.Phys() != first.Phys()+format.Phys(n) {
			break
		}
		e, err := c.born(c.at+n, r)
		if err != nil {
			return 0, err
		}
		if e.Kind != format.KindData {
			if n == 0 {
				return 1, nil
			}
			break
		}
		b.Entries = append(b.Entries, e)
		n++
	}
	from := len(b.Data)
	b.Data = append(b.Data, make([]byte, n*chunkSize)...)
	off := int64(first.Phys()) * chunkSize
	if err := c.v.d.ReadAt(b.Data[from:], off); err != nil {
		return 0, err
	}
	entries := b.Entries[len(b.Entries)-int(n):]
	for i, e := range entries {
		if format.Sum(b.Data[from+i*chunkSize:from+(i+1)*chunkSize]) != e.CRC {
			c.v.corrupt.Add(1)
			return 0, &CorruptError{Disk: c.v.d.Name(), What: "chunk", LBA: e.LBA, Offset: off + int64(i)*chunkSize}
		}
	}
	return n, nil
}

// born returns the inverse map of the chunk that r leads to, or none if it is older than From, or no data.
func (c *Cut) born(lba uint64, r ref) (format.Entry, error) {
	if !r.HasData() {
		return format.Entry{}, nil
	}
	seg, i := c.v.geo.Locate(r.Phys())
	also := c.also.has(lba)
	slots, err := c.slots(seg, also)
	if err != nil || slots == nil {
		return format.Entry{}, err
	}
	e := slots[i]
	if e.Kind != format.KindData || e.LBA != lba || !r.Matches(e.CRC) || e.Birth >= c.End {
		return e, &CorruptError{Disk: c.v.d.Name(), What: "inverse map", LBA: lba, Offset: int64(c.v.geo.Phys(seg, c.v.geo.Slots())) * chunkSize}
	}
	if e.Birth < c.From && !also || e.Birth < c.got.Base(lba) {
		return format.Entry{}, nil // the mirror has it
	}
	return e, nil
}

// slots returns the inverse map of a segment as of End; unless old ones are wanted too, nil when nothing in it is as young
// as From.
func (c *Cut) slots(seg uint32, old bool) ([]format.Entry, error) {
	if s, ok := c.births[seg]; ok && (s != nil || !old) {
		return s, nil
	}
	s, err := c.loadSlots(seg, old)
	if err != nil {
		return nil, err
	}
	if len(c.births) >= birthCache {
		for old := range c.births { // any one
			delete(c.births, old)
			break
		}
	}
	c.births[seg] = s
	return s, nil
}

func (c *Cut) loadSlots(seg uint32, old bool) ([]format.Entry, error) {
	v := c.v
	page, err := c.segs.leaf(uint64(seg)/format.RowsPerPage, true)
	if err != nil {
		return nil, err
	}
	var row format.SegmentRow
	if page != nil {
		row = format.GetSegmentRow(page[seg%format.RowsPerPage*format.SegmentRowSize:])
	}
	switch row.State {
	case format.SegmentSealed:
		if row.MaxPosition <= c.From && !old {
			return nil, nil
		}
		return v.readSummary(seg)
	case format.SegmentOpen:
		slots := make([]format.Entry, v.geo.Slots())
		end := uint32(0)
		switch {
		case row.Kind == format.BatchCold && row.MaxPosition <= c.From && !old:
			return nil, nil
		case row.Kind == format.BatchCold && seg == c.cold.Segment:
			end = c.cold.Chunk
		case seg == c.log.Segment:
			end = c.log.Chunk
		}
		return slots, v.refillSlots(seg, end, row.Kind, slots)
	}
	return nil, fmt.Errorf("%s: the map leads to segment %d, which is free; run `cawrm check`", v.d.Name(), seg)
}

// readSummary reads the inverse map of a sealed segment.
func (v *Volume) readSummary(seg uint32) ([]format.Entry, error) {
	b := make([]byte, v.geo.SummaryChunks*chunkSize)
	off := int64(v.geo.Phys(seg, v.geo.Slots())) * chunkSize
	if err := v.d.ReadAt(b, off); err != nil {
		return nil, err
	}
	s, err := format.DecodeSummary(v.geo, b)
	if err == nil && (s.Segment != seg || s.Tag != v.tag) {
		err = fmt.Errorf("it is of segment %d: %w", s.Segment, format.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: summary of segment %d at byte %d: %w; run `cawrm check`", v.d.Name(), seg, off, err)
	}
	for uint32(len(s.Slots)) < v.geo.Slots() {
		s.Slots = append(s.Slots, format.Entry{})
	}
	return s.Slots, nil
}

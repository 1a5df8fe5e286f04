package recovery

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// Repair derives again what is damaged and can be derived, and puts it behind a new checkpoint:
//
//	super chunk      from a checkpoint, and segments that fit it
//	meta chunk       from the other one; the log rolls forward, also across the place of a checkpoint that is lost
//	segment table    live counts from walking the maps; states from them and from following the log back (repair_log.go)
//	counts           from walking the maps
//	forward map      from that of the checkpoint before and the log behind it, else from the whole log, if that is whole
//	catalog          from an earlier copy among the map pages
//	summaries        from the headers of the segment's batches
//
// All is tried in memory first, on an overlay. The container is changed only when a check of that finds less wrong
// than before, or of a container that could not be opened; then pages, rows and summaries go to places that no valid checkpoint refers to and are made durable
// before the new meta chunk, which takes the place of the older or damaged one. So a crash leaves what was there.
//
// Not derived: data whose checksum does not match (a mirror has them), headers of batches, both meta chunks.

// Repaired says what a repair did.
type Repaired struct {
	Before  *Report // nil when not even a check could be made
	After   *Report // nil when nothing was changed
	Why     error   // why no check could be made before
	Mended  []string
	Refused []string // what could not be derived, and why
}

// OK tells whether every rule holds now.
func (r *Repaired) OK() bool {
	if r.After != nil {
		return r.After.OK()
	}
	return r.Before != nil && r.Before.OK()
}

// Print writes what was done, and the report of the check afterwards. Errors: w's.
func (r *Repaired) Print(w io.Writer) error {
	if r.Why != nil {
		fmt.Fprintf(w, "before    %v\n", r.Why)
	}
	for _, line := range r.Mended {
		fmt.Fprintf(w, "repaired  %s\n", line)
	}
	for _, line := range r.Gone() {
		fmt.Fprintf(w, "repaired  %s\n", line)
	}
	for _, line := range r.Refused {
		fmt.Fprintf(w, "remains   %s\n", line)
	}
	last := r.After
	switch {
	case last != nil:
		fmt.Fprintln(w)
	case r.Before.OK():
		last = r.Before
	default:
		last = r.Before
		fmt.Fprint(w, "nothing was changed: what is wrong cannot be derived again\n\n")
	}
	return last.Print(w)
}

// Gone lists the violations that were there before and are not now.
func (r *Repaired) Gone() (lines []string) {
	if r.Before == nil || r.After == nil {
		return nil
	}
	for _, v := range r.Before.Violations {
		if !slices.Contains(r.After.Violations, v) {
			lines = append(lines, fmt.Sprintf("%-3s %s", v.Rule, v.Text))
		}
	}
	return lines
}

// RepairFile is Repair under the exclusive lock. Errors: disk.ErrInUse, what cannot be repaired at all, the disk's.
func RepairFile(path string, o CheckOptions) (*Repaired, error) {
	d, err := disk.OpenFile(path, false)
	if err != nil {
		return nil, err
	}
	r, err := Repair(d, o)
	return r, errors.Join(err, d.Close())
}

// Repair repairs a closed container. It changes nothing when every rule holds, or when it would not get better.
func Repair(d disk.Disk, o CheckOptions) (*Repaired, error) {
	res := &Repaired{}
	if res.Before, res.Why = Check(d, o); res.Before != nil && res.Before.OK() && res.Before.Container.Stale == nil {
		return res, nil
	}
	over, m, after, err := try(d, o, trustMap)
	if err != nil {
		return nil, err
	}
	if after.wrongMap() { // it can be read, and is not what the log says
		if o2, m2, after2, err := try(d, o, mapFromLog); err == nil && after2.Total() < after.Total() {
			over, m, after = o2, m2, after2
		}
	}
	res.Refused = m.lost
	if res.Before != nil && after.Total() >= res.Before.Total() && !after.OK() && !m.barred {
		return res, nil
	}
	if err := over.Commit(format.DataStart * format.ChunkSize); err != nil {
		return nil, fmt.Errorf("%s: the repair was not finished, repeat it: %w", d.Name(), err)
	}
	res.After, res.Mended = after, m.mended
	return res, nil
}

// How a derivation is made.
type mode int

const (
	trustMap   mode = iota // what can be read of the forward map counts
	mapFromLog             // it is made anew as a whole
	forRescue              // what is unreadable stays so, rather than that the rest is refused; data are not looked at
)

// try repairs on an overlay and checks that.
func try(d disk.Disk, o CheckOptions, how mode) (*disk.Overlay, *mender, *Report, error) {
	over := disk.NewOverlay(d)
	m, err := mend(over, how)
	if err != nil {
		return nil, nil, nil, err
	}
	after, err := Check(over, o)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: it cannot be repaired: %w", d.Name(), err)
	}
	return over, m, after, nil
}

// wrongMap tells whether references lead where they should not.
func (r *Report) wrongMap() bool {
	for _, rule := range []Rule{5, 6, 7, 8, 18, 19} {
		if r.Broken[rule] > 0 {
			return true
		}
	}
	return false
}

// Rescue makes a container that can be opened of what is left of a damaged one. Its changes are kept by the overlay.
// Errors: nothing tells what the volume was.
func Rescue(d *disk.Overlay) (Rescued, error) {
	m, err := mend(d, forRescue)
	if err != nil {
		return Rescued{}, err
	}
	for at, err := range d.Bad() {
		m.lost = append(m.lost, fmt.Sprintf("byte %d cannot be read: %v", at, err))
	}
	slices.Sort(m.lost)
	return Rescued{m.mended, m.lost}, nil
}

// Rescued says, a line each, what a rescue found or made anew, and what is lost. Data are not looked at: what does not
// match its checksum is found when it is read.
type Rescued struct{ Found, Lost []string }

// mender is one repair under way. One goroutine.
type mender struct {
	d      *disk.Overlay
	size   int64 // before anything grew
	c      *Container
	geo    format.Geometry
	how    mode
	rescue bool

	mended, lost []string

	catalog format.Catalog
	rows    []format.SegmentRow
	known   []bool            // the row was read
	traced  map[uint32]bool   // segments that the log comes through; only when rows are not known
	leaves  map[uint64][]byte // of the forward map, changed
	gone    []gap             // parts of the forward map that could not be read
	whole   bool              // these are made anew
	rolled  Rolled
	barred  bool        // what was mended kept the volume from being opened
	before  *bitmap     // chunks that something referred to
	used    *bitmap     // chunks that something refers to now
	mapped  uint64      // logical chunks that are not holes
	meta    format.Meta // the new checkpoint
	w       *metaWriter
}

func (m *mender) did(text string, args ...any) {
	m.mended = append(m.mended, fmt.Sprintf(text, args...))
}
func (m *mender) cannot(text string, args ...any) {
	m.lost = append(m.lost, fmt.Sprintf(text, args...))
}

// mend does the whole repair on an overlay.
func mend(d *disk.Overlay, how mode) (*mender, error) {
	m := &mender{d: d, size: d.Size(), how: how, rescue: how == forRescue, leaves: map[uint64][]byte{}}
	if err := m.find(); err != nil {
		return nil, err
	}
	m.readRows()
	copied := m.readCatalog()
	m.readMap()
	if err := m.rebuild(); err != nil {
		return nil, err
	}
	if err := m.roll(); err != nil {
		return nil, err
	}
	m.deriveRows()
	m.chooseHead()
	m.w = newMetaWriter(m)
	if err := m.writeTrees(copied); err != nil {
		return nil, err
	}
	if !m.rescue {
		m.summarize()
	}
	return m, m.w.flush()
}

// find finds the newest checkpoint that is valid, and what belongs to the container's fixed chunks.
func (m *mender) find() error {
	if m.rescue {
		m.stretch()
	}
	c, err := Newest(m.d)
	if err != nil && m.deriveSuper() {
		c, err = Newest(m.d)
	}
	if err != nil {
		return err
	}
	for _, seg := range []uint32{c.Meta.Log.Segment, c.Meta.Log.Next, c.Meta.MetaSegment, c.Meta.MetaNext} {
		if uint64(seg) > c.Meta.Segments+maxAhead {
			return fmt.Errorf("%s: checkpoint %d names segment %d, of %d: %w; restore the container from a mirror", m.d.Name(), c.Meta.Seq, seg, c.Meta.Segments, format.ErrInvalid)
		}
	}
	m.c, m.geo, m.meta = c, c.Geo, c.Meta
	if c.Stale != nil {
		m.did("checkpoint: %d at position %d counts; the other meta chunk does not: %v", c.Meta.Seq, c.Meta.Position, c.Stale)
	} else if m.rescue {
		m.did("checkpoint: %d at position %d, %s", c.Meta.Seq, c.Meta.Position, when(c.Meta.Time))
	}
	m.meta.Flags &^= format.FlagClean
	m.meta.Seq++
	if at, diskErr, err := readMeta(m.d, int(c.Meta.Seq%2)); diskErr != nil || err != nil || at.Seq != c.Meta.Seq {
		m.meta.Seq++ // it stands in the chunk of another one, and must not be overwritten
	}
	m.meta.Time = time.Now().UnixNano()
	return nil
}

// stretch makes a container that was cut off as long as a checkpoint says, so that only what is missing is missing.
func (m *mender) stretch() {
	b := make([]byte, format.ChunkSize)
	if m.d.Size() < format.DataStart*format.ChunkSize || m.d.ReadAt(b, 0) != nil {
		return
	}
	super, err := format.DecodeSuper(b)
	if err != nil {
		return
	}
	had := m.d.Size()
	for i := range 2 {
		at, diskErr, err := readMeta(m.d, i)
		if diskErr == nil && err == nil && at.Segments < maxSegments {
			_ = m.d.Grow(format.NewGeometry(super.SegmentChunks).Bytes(at.Segments)) // an overlay always can
		}
	}
	if m.d.Size() > had {
		m.cannot("the container is cut off at byte %d, of %d", had, m.d.Size())
	}
}

// maxSegments bounds the memory that a checkpoint's number of segments asks for, where no size of the disk does: 32 TiB.
const maxSegments = 4 << 20

// maxAhead is how far beyond the last segment that is used one can be reserved.
const maxAhead = 1 << 16

// deriveSuper makes a damaged super chunk anew: a meta chunk holds the container's uuid, and only one size of segments
// has batches of that container where the meta chunk says.
func (m *mender) deriveSuper() bool {
	b := make([]byte, format.ChunkSize)
	if m.d.Size() < format.DataStart*format.ChunkSize || m.d.ReadAt(b, 0) != nil {
		return false
	}
	if _, err := format.DecodeSuper(b); err == nil || errors.Is(err, format.ErrVersion) {
		return false
	}
	for i := range 2 {
		at, diskErr, err := readMeta(m.d, i)
		if diskErr != nil || err != nil {
			continue
		}
		for chunks := uint32(32); chunks <= 65536; chunks *= 2 {
			s := format.Super{Container: at.Container, SegmentChunks: chunks, Created: at.Time}
			if !m.fits(&s, &at) {
				continue
			}
			s.Encode(b)
			if m.d.WriteCached(b, 0) != nil {
				return false
			}
			m.did("super chunk: made anew from checkpoint %d; the time of creation is not known", at.Seq)
			return true
		}
	}
	return false
}

// fits tells whether segments of that size have the checkpoint's root where it says, behind batches of the container.
func (m *mender) fits(s *format.Super, at *format.Meta) bool {
	g := format.NewGeometry(s.SegmentChunks)
	b := make([]byte, format.ChunkSize)
	var h format.BatchHeader
	for _, seg := range []uint32{at.MetaSegment, at.Log.Segment} {
		if m.d.ReadAt(b, int64(g.Phys(seg, 0))*format.ChunkSize) != nil || h.Decode(b) != nil || h.Tag != Tag(s.Container) {
			return false
		}
	}
	return true
}

package recovery

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"

	"golang.org/x/sys/unix"
)

// DumpOptions chooses what is dumped beyond super chunk, checkpoints, catalog and segment table.
type DumpOptions struct {
	Segment int   // the batches of this segment; -1: none
	LBA     int64 // where this logical chunk is; -1: none
	Verbose bool  // the entries of batches, and each segment in a line of its own
}

// Section is a part of a dump: a heading and rows of cells. Its form is for people, and may change.
type Section struct {
	Title string     `json:"title"`
	Rows  [][]string `json:"rows"`
}

// DumpFile is Dump on a file or block device. It does not mind that somebody has it open, and says so.
func DumpFile(path string, o DumpOptions, emit func(Section) error) (used bool, err error) {
	d, err := disk.OpenFile(path, true)
	if err != nil {
		return false, err
	}
	defer d.Close()
	used = inUse(path)
	return used, Dump(d, o, emit)
}

// Text returns what writes sections as aligned tables.
func Text(w io.Writer) func(Section) error {
	first := true
	return func(s Section) error {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		if !first {
			fmt.Fprintln(t)
		}
		first = false
		fmt.Fprintln(t, s.Title)
		for _, row := range s.Rows {
			fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
		}
		return t.Flush()
	}
}

func inUse(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock back
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// dumper gathers rows, one section after the other.
type dumper struct {
	d    disk.Disk
	c    *Container
	o    DumpOptions
	emit func(Section) error
	now  Section
	err  error // the first of emit

	later []string // what the log behind the checkpoint says of the logical chunk that is looked up
}

// Dump tells what a container holds, for people. Errors: what Newest refuses, the disk's, emit's.
func Dump(d disk.Disk, o DumpOptions, emit func(Section) error) error {
	c, err := Newest(d)
	if err != nil {
		return err
	}
	p := &dumper{d: d, c: c, o: o, emit: emit}
	p.super()
	if err := p.checkpoints(); err != nil {
		return err
	}
	p.catalog()
	sections := []func() error{p.segments, p.log}
	if o.Segment >= 0 {
		sections = append(sections, p.segment)
	}
	if o.LBA >= 0 {
		sections = append(sections, p.lookup)
	}
	for _, section := range sections {
		if err := section(); err != nil {
			return errors.Join(err, p.end())
		}
	}
	return p.end()
}

// section ends the one before.
func (p *dumper) section(title string) {
	_ = p.end() // kept
	p.now = Section{Title: title}
}

func (p *dumper) end() error {
	if p.now.Title != "" && p.err == nil {
		p.err = p.emit(p.now)
	}
	p.now = Section{}
	return p.err
}

// row adds cells in columns.
func (p *dumper) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	p.now.Rows = append(p.now.Rows, row)
}

func (p *dumper) super() {
	s := &p.c.Super
	p.section("super chunk (byte 0)")
	p.row("file", p.d.Name())
	p.row("bytes", fmt.Sprintf("%d, held on disk %s", p.d.Size(), size(p.d.Allocated())))
	p.row("container", s.Container)
	p.row("format", format.Version)
	p.row("created", when(s.Created))
	p.row("segment", fmt.Sprintf("%d chunks, %s; %d of them for the summary", s.SegmentChunks, size(p.c.Geo.SegmentBytes()), p.c.Geo.SummaryChunks))
}

func (p *dumper) checkpoints() error {
	for i := range 2 {
		m, diskErr, err := readMeta(p.d, i)
		if diskErr != nil {
			return diskErr
		}
		title := fmt.Sprintf("meta chunk %s (byte %d)", metaName(i), (1+i)*format.ChunkSize)
		switch {
		case errors.Is(err, format.ErrMagic):
			p.section(title + ": empty, or torn")
		case err != nil:
			p.section(title + ": " + err.Error())
		case m.Seq == p.c.Meta.Seq:
			p.section(title + ": the newest checkpoint")
			p.meta(&m)
		default:
			p.section(title + ": the checkpoint before")
			p.meta(&m)
		}
	}
	return nil
}

func (p *dumper) meta(m *format.Meta) {
	p.row("sequence", m.Seq)
	p.row("time", when(m.Time))
	p.row("flags", flagNames(m.Flags))
	p.row("volume", m.Volume)
	p.row("size", fmt.Sprintf("%d, %s", m.Size, size(m.Size)))
	p.row("position", position(m.Position))
	p.row("history_floor", position(m.HistoryFl))
	p.row("trim_floor", position(m.TrimFloor))
	p.row("mapped", fmt.Sprintf("%d chunks, %s", m.Mapped, size(int64(m.Mapped)*format.ChunkSize)))
	p.row("live", fmt.Sprintf("%d chunks of data, %s", m.Live, size(int64(m.Live)*format.ChunkSize)))
	p.row("logged", fmt.Sprintf("%d chunks, %s", m.Logged, size(int64(m.Logged)*format.ChunkSize)))
	p.row("forward map", fmt.Sprintf("height %d, root %s", m.MapHeight, p.ref(m.MapRoot)))
	p.row("segment tree", fmt.Sprintf("height %d, root %s", m.SegHeight, p.ref(m.SegRoot)))
	p.row("catalog", fmt.Sprintf("%d bytes, %s", m.CatalogLen, p.ref(m.Catalog)))
	p.row("segments", fmt.Sprintf("%d, of these %d free", m.Segments, m.Free))
	capacity := "none"
	if m.Capacity > 0 {
		capacity = size(m.Capacity)
	}
	p.row("capacity", capacity)
	p.row("incarnation", m.Incarnation)
	p.row("log goes on", fmt.Sprintf("segment %d chunk %d, then segment %d; batch %d after checksum %08x", m.Log.Segment, m.Log.Chunk, m.Log.Next, m.Log.Seq, m.Log.PrevCRC))
	p.row("pages go on", fmt.Sprintf("segment %d chunk %d, then segment %d", m.MetaSegment, m.MetaChunk, m.MetaNext))
	if m.ColdChunk > 0 {
		p.row("cold chunks go on", fmt.Sprintf("segment %d chunk %d", m.ColdSegment, m.ColdChunk))
	}
}

func flagNames(f uint32) string {
	var names []string
	for _, n := range []struct {
		bit  uint32
		name string
	}{{format.FlagMirror, "mirror"}, {format.FlagNoIdentity, "without identity"}, {format.FlagClean, "closed in order"}} {
		if f&n.bit != 0 {
			names = append(names, n.name)
			f &^= n.bit
		}
	}
	if f != 0 {
		names = append(names, fmt.Sprintf("unknown %#x", f))
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// ref names the place that a reference leads to.
func (p *dumper) ref(r format.Ref) string {
	switch {
	case r == format.Unmapped:
		return "none"
	case r == format.ZeroRef:
		return "zeroes"
	case r == format.HoleRef:
		return "a hole over what the base has"
	case !r.HasData():
		return fmt.Sprintf("%#x, which leads nowhere", uint64(r))
	}
	seg, chunk := p.c.Geo.Locate(r.Phys())
	return fmt.Sprintf("segment %d chunk %d (byte %d, checksum ..%06x)", seg, chunk, int64(r.Phys())*format.ChunkSize, uint64(r)>>40)
}

func (p *dumper) catalog() {
	cat, err := ReadCatalog(p.d, p.c)
	if err != nil {
		p.section(err.Error())
		return
	}
	p.section(fmt.Sprintf("catalog: %d links of lineage, %d mirrors, %d snapshots", len(cat.Lineage), len(cat.Mirrors), len(cat.Snapshots)))
	for _, l := range cat.Lineage {
		p.row("lineage", l.ID, "from position "+position(l.Start))
	}
	for _, m := range cat.Mirrors {
		p.row("mirror", m.ID, "sync_ptr "+position(m.SyncPtr), m.URL)
	}
	if b := cat.Base; b != nil {
		p.row("clone of", fmt.Sprintf("%q", b.Snapshot), "position "+position(b.Position), "in container "+b.Container.String(), b.Path)
	}
	for _, c := range cat.Clones {
		p.row("clone", fmt.Sprintf("%q", c.Name), fmt.Sprintf("of %q", c.Snapshot), c.Path)
	}
	for _, s := range cat.Snapshots {
		p.row("snapshot", fmt.Sprintf("%q", s.Name), "position "+position(s.Position), size(s.Size), when(s.Time), "root "+p.ref(s.Root), map[bool]string{true: "being deleted"}[s.Flags&format.FlagDeleting != 0])
	}
}

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

// DumpFile is Dump on a file or block device. It does not mind that somebody has it open, and says so.
func DumpFile(path string, w io.Writer, o DumpOptions) error {
	d, err := disk.OpenFile(path, true)
	if err != nil {
		return err
	}
	defer d.Close()
	if inUse(path) {
		fmt.Fprintf(w, "%s is in use: what follows is its newest checkpoint, and what it holds may change meanwhile\n\n", path)
	}
	return Dump(d, w, o)
}

func inUse(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock back
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// dumper writes aligned tables, one a section.
type dumper struct {
	d disk.Disk
	c *Container
	t *tabwriter.Writer
	o DumpOptions

	later []string // what the log behind the checkpoint says of the logical chunk that is looked up
}

// Dump writes what a container holds, for people. Errors: what Newest refuses, the disk's, w's.
func Dump(d disk.Disk, w io.Writer, o DumpOptions) error {
	c, err := Newest(d)
	if err != nil {
		return err
	}
	p := &dumper{d: d, c: c, t: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0), o: o}
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
			return err
		}
	}
	return p.t.Flush()
}

// section ends the table before and puts a heading above the next.
func (p *dumper) section(title string) {
	p.t.Flush()
	fmt.Fprintf(p.t, "\n%s\n", title)
}

// row writes cells in columns.
func (p *dumper) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(p.t, "\t")
		}
		fmt.Fprint(p.t, c)
	}
	fmt.Fprintln(p.t)
}

func (p *dumper) super() {
	s := &p.c.Super
	fmt.Fprintf(p.t, "super chunk (byte 0)\n")
	p.row("  file", p.d.Name())
	p.row("  bytes", fmt.Sprintf("%d, held on disk %s", p.d.Size(), size(p.d.Allocated())))
	p.row("  container", s.Container)
	p.row("  format", format.Version)
	p.row("  created", when(s.Created))
	p.row("  segment", fmt.Sprintf("%d chunks, %s; %d of them for the summary", s.SegmentChunks, size(p.c.Geo.SegmentBytes()), p.c.Geo.SummaryChunks))
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
	p.row("  sequence", m.Seq)
	p.row("  time", when(m.Time))
	p.row("  flags", flagNames(m.Flags))
	p.row("  volume", m.Volume)
	p.row("  size", fmt.Sprintf("%d, %s", m.Size, size(m.Size)))
	p.row("  position", position(m.Position))
	p.row("  history_floor", position(m.HistoryFl))
	p.row("  trim_floor", position(m.TrimFloor))
	p.row("  mapped", fmt.Sprintf("%d chunks, %s", m.Mapped, size(int64(m.Mapped)*format.ChunkSize)))
	p.row("  live", fmt.Sprintf("%d chunks of data, %s", m.Live, size(int64(m.Live)*format.ChunkSize)))
	p.row("  logged", fmt.Sprintf("%d chunks, %s", m.Logged, size(int64(m.Logged)*format.ChunkSize)))
	p.row("  forward map", fmt.Sprintf("height %d, root %s", m.MapHeight, p.ref(m.MapRoot)))
	p.row("  segment tree", fmt.Sprintf("height %d, root %s", m.SegHeight, p.ref(m.SegRoot)))
	p.row("  catalog", fmt.Sprintf("%d bytes, %s", m.CatalogLen, p.ref(m.Catalog)))
	p.row("  segments", fmt.Sprintf("%d, of these %d free", m.Segments, m.Free))
	capacity := "none"
	if m.Capacity > 0 {
		capacity = size(m.Capacity)
	}
	p.row("  capacity", capacity)
	p.row("  incarnation", m.Incarnation)
	p.row("  log goes on", fmt.Sprintf("segment %d chunk %d, then segment %d; batch %d after checksum %08x", m.Log.Segment, m.Log.Chunk, m.Log.Next, m.Log.Seq, m.Log.PrevCRC))
	p.row("  pages go on", fmt.Sprintf("segment %d chunk %d, then segment %d", m.MetaSegment, m.MetaChunk, m.MetaNext))
	if m.ColdChunk > 0 {
		p.row("  cold chunks go on", fmt.Sprintf("segment %d chunk %d", m.ColdSegment, m.ColdChunk))
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
		p.row("  lineage", l.ID, "from position "+position(l.Start))
	}
	for _, m := range cat.Mirrors {
		p.row("  mirror", m.ID, "sync_ptr "+position(m.SyncPtr), m.URL)
	}
	if b := cat.Base; b != nil {
		p.row("  clone of", fmt.Sprintf("%q", b.Snapshot), "position "+position(b.Position), "in container "+b.Container.String(), b.Path)
	}
	for _, c := range cat.Clones {
		p.row("  clone", fmt.Sprintf("%q", c.Name), fmt.Sprintf("of %q", c.Snapshot), c.Path)
	}
	for _, s := range cat.Snapshots {
		p.row("  snapshot", fmt.Sprintf("%q", s.Name), "position "+position(s.Position), size(s.Size), when(s.Time), "root "+p.ref(s.Root), map[bool]string{true: "being deleted"}[s.Flags&format.FlagDeleting != 0])
	}
}

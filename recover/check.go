package recovery

import (
	"fmt"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// CheckOptions says how deep a check goes and who hears of it.
type CheckOptions struct {
	Quick    bool                                  // leave out reading the data of mapped chunks
	MaxLines int                                   // lines listed for each broken rule; 0: 10
	Memory   int64                                 // bytes for the table of references; 0: 128 MiB
	Progress func(stage string, done, total int64) // bytes; called now and then by Check's goroutine; may be nil
}

// CheckFile is Check on a file or block device. It holds a shared lock meanwhile, so that nobody opens it for writing.
// Errors: disk.ErrInUse when somebody has, what Newest refuses, the disk's.
func CheckFile(path string, o CheckOptions) (*Report, error) {
	lock, err := disk.Share(path)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	d, err := disk.OpenFile(path, true)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return Check(d, o)
}

// checker is one check under way. One goroutine.
//
// Memory: 16 bytes for each segment (the rows), and 8 bytes for each chunk of the segments that are looked at
// in one pass. A pass walks the whole forward map and notes who refers to the chunks of its segments; then it
// goes through these segments in the order of the disk, so that data are read once and from front to back, and
// an entry of the inverse map is compared with the one reference that it must agree with. The map, a five hundredth of the
// data, is read once for every 64 GiB of container, which is less than the data themselves.
type checker struct {
	d        disk.Disk
	c        *Container
	o        CheckOptions
	rep      *Report
	geo      format.Geometry
	rows     []format.SegmentRow
	limit    uint64 // logical chunks
	lost     int    // pages that could not be read
	lostRows bool   // some of these are of the segment table
	first    bool   // the pass that reports what it finds in the trees
	base     uint32 // the pass looks at segments [base, end)
	end      uint32
	claims   []claim        // chunk c of segment s at (s-base)*SegmentChunks + c
	slots    []format.Entry // the inverse map of the segment that is looked at
	reader   *segmentReader
	done     int64
	lastCall time.Time
}

// Check compares a closed container with every rule of the package doc. It only reads. An error means that
// the check could not be made; what it found is in the report.
func Check(d disk.Disk, o CheckOptions) (*Report, error) {
	start := time.Now()
	if o.MaxLines == 0 {
		o.MaxLines = 10
	}
	if o.Memory == 0 {
		o.Memory = 128 << 20
	}
	c, err := Newest(d)
	if err != nil {
		return nil, err
	}
	k := &checker{d: d, c: c, o: o, geo: c.Geo, limit: uint64(c.Meta.Size) / format.ChunkSize, first: true,
		slots: make([]format.Entry, c.Geo.Slots()),
		rep: &Report{Name: d.Name(), Container: c, Quick: o.Quick, Broken: map[Rule]int{}, maxLines: o.MaxLines,
			RolledEnd: c.Meta.Position}}
	if err := k.checkMeta(); err != nil {
		return nil, err
	}
	k.loadRows()
	k.checkRows()
	k.loadCatalog()
	k.passes()
	k.checkRoll()
	k.checkCatalog()
	k.rep.sort()
	k.rep.Duration = time.Since(start)
	return k.rep, nil
}

// passes goes over the segments, as many at a time as the memory allows.
func (k *checker) passes() {
	per := max(1, uint64(k.o.Memory)/claimBytes/uint64(k.geo.SegmentChunks))
	for base := uint64(0); base < k.c.Meta.Segments || k.first; base += per {
		k.base, k.end = uint32(base), uint32(min(base+per, k.c.Meta.Segments))
		k.rep.Counts.Passes++
		k.claimAll()
		for seg := k.base; seg < k.end; seg++ {
			k.checkSegment(seg)
		}
		if k.first && k.lost == 0 && k.rep.Counts.Mapped != k.c.Meta.Mapped {
			k.rep.bad(12, "%d chunks are mapped, the checkpoint says %d", k.rep.Counts.Mapped, k.c.Meta.Mapped)
		}
		k.first = false
	}
	if k.lost > 0 {
		k.rep.note("live and mapped chunks were not compared with their counts: %d pages were not read", k.lost)
	}
}

func (k *checker) progress(stage string, n int64, total int64) {
	k.done += n
	if k.o.Progress != nil && time.Since(k.lastCall) > 100*time.Millisecond {
		k.lastCall = time.Now()
		k.o.Progress(stage, k.done, total)
	}
}

// at names a place in the container in the three ways in which somebody may look for it.
func (k *checker) at(seg, chunk uint32) string {
	p := k.geo.Phys(seg, chunk)
	return fmt.Sprintf("segment %d chunk %d (byte %d)", seg, chunk, int64(p)*format.ChunkSize)
}

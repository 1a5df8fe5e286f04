package sim

import (
	"encoding/binary"
	"fmt"
	"sort"

	"cawrm/aodi"
)

const (
	chunkSize  = 4096
	sectorSize = 512
	sectors    = chunkSize / sectorSize
)

// kind says what a logical chunk is.
type kind uint8

const (
	hole kind = iota
	zero
	data
	grow // a record, no chunk's: the volume has count chunks from it on
	back // a record, no chunk's: from it on all is as it was at a position
)

// content is a chunk, told by the stamps of its sectors; stamp 0 is zeroes.
type content [sectors]uint64

// version is a chunk from the record at a position on.
type version struct {
	at   aodi.Position
	kind kind
	content
}

// record is what an operation makes of the log, one position each.
type record struct {
	kind  kind // data: one chunk; zero, hole: count chunks; grow: the volume
	lba   int64
	count int64
	mask  uint8         // data: the sectors that are written
	was   aodi.Position // back: to what
	content
}

// window is a run of logical chunks that the clients use. All others are holes for ever.
type window struct{ first, count int64 }

// model keeps every version of every chunk by position: what the volume is at any cut.
type model struct {
	windows  []window
	versions map[int64][]version
	sizes    []sized
	end      aodi.Position // after the last record
	stamp    uint64
}

func newModel(windows []window, size int64) *model {
	m := &model{windows: windows, versions: map[int64][]version{}, sizes: []sized{{0, size}}}
	for _, w := range windows {
		for lba := w.first; lba < w.first+w.count; lba++ {
			m.versions[lba] = []version{{}}
		}
	}
	return m
}

// at is a chunk as of a cut: the records below p.
func (m *model) at(lba int64, p aodi.Position) version {
	all := m.versions[lba]
	if len(all) == 0 {
		return version{}
	}
	n := len(all)
	if all[n-1].at < p || n == 1 {
		return all[n-1]
	}
	i := sort.Search(n, func(i int) bool { return i > 0 && all[i].at >= p })
	return all[i-1]
}

// ever tells whether a chunk ever held that.
func (m *model) ever(lba int64, c content) bool {
	for _, v := range m.versions[lba] {
		if v.content == c {
			return true
		}
	}
	return false
}

func (m *model) now(lba int64) version { return m.at(lba, m.end) }

// after is what a data record makes of a chunk.
func (r *record) after(was content) content {
	for i := range was {
		if r.mask&(1<<i) != 0 {
			was[i] = r.content[i]
		}
	}
	return was
}

// add appends a record.
func (m *model) add(r record) {
	switch r.kind {
	case data:
		v := version{at: m.end, kind: data, content: r.after(m.now(r.lba).content)}
		m.versions[r.lba] = append(m.versions[r.lba], v)
	case grow:
		m.sizes = append(m.sizes, sized{m.end, r.count * chunkSize})
	case back:
		m.restore(r.was)
	default:
		m.each(r.lba, r.lba+r.count, func(lba int64) {
			m.versions[lba] = append(m.versions[lba], version{at: m.end, kind: r.kind})
		})
	}
	m.end++
}

// each calls do for the chunks of the windows in [first, last).
func (m *model) each(first, last int64, do func(lba int64)) {
	for _, w := range m.windows {
		for lba := max(first, w.first); lba < min(last, w.first+w.count); lba++ {
			do(lba)
		}
	}
}

// truncate forgets the records from p on: a crash took them.
func (m *model) truncate(p aodi.Position) {
	m.end = p
	m.truncateSizes(p)
	for lba, all := range m.versions {
		n := len(all)
		for n > 1 && all[n-1].at >= p {
			n--
		}
		m.versions[lba] = all[:n]
	}
}

// mapped is the number of chunks that are no holes at a cut.
func (m *model) mapped(p aodi.Position) (n int64) {
	for lba := range m.versions {
		if m.at(lba, p).kind != hole {
			n++
		}
	}
	return n
}

// write plans a write of n sectors from sector s on: parts of chunks and whole chunks, in the order of the log.
func (m *model) write(s, n int64) (plan []record, p []byte) {
	p = make([]byte, n*sectorSize)
	for i := int64(0); i < n; {
		lba, in := (s+i)/sectors, (s+i)%sectors
		r := record{kind: data, lba: lba, count: 1}
		for ; in < sectors && i < n; in, i = in+1, i+1 {
			m.stamp++
			r.mask |= 1 << in
			r.content[in] = m.stamp
			fill(p[i*sectorSize:(i+1)*sectorSize], m.stamp)
		}
		plan = append(plan, r)
	}
	return plan, p
}

// zeroes plans a zeroing of n sectors: the parts of chunks at its ends are written, the chunks between become to.
// Where nothing would change, there is no record.
func (m *model) zeroes(s, n int64, to kind) (plan []record) {
	first, last := (s+sectors-1)/sectors, (s+n)/sectors
	part := func(lba, from, to int64) {
		r := record{kind: data, lba: lba, count: 1}
		for i := from; i < to; i++ {
			r.mask |= 1 << i
		}
		plan = append(plan, r)
	}
	if in := s % sectors; in != 0 {
		part(s/sectors, in, min(sectors, in+n))
	}
	if in := (s + n) % sectors; in != 0 && (s+n)/sectors >= first {
		part((s+n)/sectors, 0, in)
	}
	return append(plan, m.chunks(first, last, to)...)
}

// chunks plans that chunks [first, last) become to, holes or zeroes.
func (m *model) chunks(first, last int64, to kind) []record {
	changes := false
	m.each(first, last, func(lba int64) { changes = changes || m.now(lba).kind != to })
	if !changes {
		return nil
	}
	return []record{{kind: to, lba: first, count: last - first}}
}

// word is one of a sector's. Those of its begin tell the stamp; the others only which of a few kinds it is of, so that chunks look like each
// other, and mirrors are referred to what they have.
func word(stamp uint64, at int) uint64 {
	switch {
	case stamp == 0:
		return 0
	case at < sectorSize/8:
		return stamp + uint64(at)<<48
	}
	return (stamp%8<<32 + uint64(at) + 1) * 0x9e3779b97f4a7c15
}

// fill writes a sector.
func fill(b []byte, stamp uint64) {
	for i := 0; i < sectorSize; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], word(stamp, i))
	}
}

// read tells the stamps of a chunk, or which sector is none that anybody ever wrote.
func read(b []byte) (c content, err error) {
	for i := range c {
		s := b[i*sectorSize : (i+1)*sectorSize]
		stamp := binary.LittleEndian.Uint64(s)
		c[i] = stamp
		for k := 8; k < sectorSize; k += 8 {
			if got, want := binary.LittleEndian.Uint64(s[k:]), word(stamp, k); got != want {
				return c, fmt.Errorf("sector %d is torn: stamp %d at its begin, %#x instead of %#x at byte %d", i, stamp, got, want, k)
			}
		}
	}
	return c, nil
}

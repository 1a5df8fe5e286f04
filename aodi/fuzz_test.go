package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// The targets take a container and an input that is a list of edits of it. No fuzzer finds a checksum, so a container
// can be mended after it was edited: all checksums are right again, also those in references and in the log's chain,
// and what an edit says is believed unless it is looked at.

var le = binary.LittleEndian

// edit is 12 bytes of the input.
//
//	 0      1     2        4          12
//	+------+-----+--------+-----------+
//	|chunk | op  | offset | value u64 |
//	+------+-----+--------+-----------+
type edit [12]byte

func (e *edit) apply(b, other []byte) {
	at := int(le.Uint16(e[2:])) % (format.ChunkSize - 8)
	switch v := e[4:]; e[1] % 8 {
	case 0:
		b[at] = v[0]
	case 1:
		copy(b[at:at+2], v)
	case 2:
		copy(b[at:at+4], v)
	case 3:
		copy(b[at:at+8], v)
	case 4:
		le.PutUint64(b[at&^7:], le.Uint64(b[at&^7:])+uint64(int64(int8(v[0]))))
	case 5: // as of another time or place
		copy(b, other)
	case 6: // one word over many entries of a page
		for i := at &^ 7; i+8 <= format.ChunkSize && i < at+int(v[0])*16; i += 8 {
			copy(b[i:], v[1:5])
		}
	case 7:
		copy(b[at&^7:], other[at&^7:min(format.ChunkSize, at&^7+8+int(v[0]))])
	}
}

// template is a container without its empty chunks.
type template struct {
	size   int64
	at     []int64
	chunks [][]byte
	h      history
	least  int // records in its oldest checkpoint
}

const (
	templateChunks = 600
	fuzzDisk       = 1 << 24
)

// templates are containers in the states in which one can be found.
var templates = sync.OnceValue(func() []*template {
	var all []*template
	for _, build := range []func(h *history) (*disk.Memory, int, error){crashedTemplate, closedTemplate, mirrorTemplate} {
		t := &template{h: history{chunks: templateChunks}}
		d, least, err := build(&t.h)
		if err != nil {
			panic(err)
		}
		t.size, t.least = d.Size(), least
		zero := make([]byte, chunk)
		for off := int64(0); off < d.Size(); off += chunk {
			b := make([]byte, chunk)
			if err := d.ReadAt(b, off); err != nil {
				panic(err)
			}
			if !bytes.Equal(b, zero) {
				t.at, t.chunks = append(t.at, off), append(t.chunks, b)
			}
		}
		d.Free()
		all = append(all, t)
	}
	return all
})

// crashedTemplate has records behind its checkpoint.
func crashedTemplate(h *history) (d *disk.Memory, least int, err error) {
	d = disk.NewMemory(fuzzDisk)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: templateChunks * chunk, SegmentChunks: 32}); err != nil {
		return nil, 0, err
	}
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		return nil, 0, err
	}
	defer v.Close()
	write := func(c int, stamp uint64) error {
		h.ops = append(h.ops, histOp{c, stamp})
		return v.WriteAt(stamped(stamp), int64(c)*chunk, false)
	}
	v.RememberMirror(format.Mirror{ID: "b", URL: "cawrm://b/vm", SyncPtr: 3})
	for i := range 40 {
		err = errors.Join(err, write(i*13%templateChunks, uint64(i+1)))
	}
	err = errors.Join(err, v.Checkpoint(), v.Trim(13*chunk, chunk, false), v.WriteZeroes(26*chunk, chunk, true, true))
	h.ops = append(h.ops, histOp{13, 0}, histOp{26, 0})
	for i := range 20 {
		err = errors.Join(err, write(i*29%templateChunks, uint64(i+100)))
	}
	err = errors.Join(err, v.Flush(), d.Sync())
	return d.Crash(newRand(1)), 40, err
}

func closedTemplate(h *history) (*disk.Memory, int, error) {
	d, least, err := crashedTemplate(h)
	if err != nil {
		return nil, 0, err
	}
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		return nil, 0, err
	}
	return d, least, v.Close()
}

// mirrorTemplate has an epoch behind its checkpoint, one that broke off, another one, and the beginning of the next.
func mirrorTemplate(h *history) (*disk.Memory, int, error) {
	d := disk.NewMemory(fuzzDisk)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Mirror: true, SegmentChunks: 32}); err != nil {
		return nil, 0, err
	}
	v, err := aodi.OpenOn(d, quiet)
	if err != nil {
		return nil, 0, err
	}
	defer v.Close()
	stage := func(first, n int, stamp uint64, whole bool) error {
		for i := range n {
			if whole {
				h.ops = append(h.ops, histOp{i, stamp + uint64(i)})
			}
		}
		return v.Stage(stagedBatch(aodi.Position(first), n, func(i int) uint64 { return uint64(i) }, stamp), whole)
	}
	commit := func() error { _, err := v.Commit(); return err }
	id := format.UUID{1}
	for _, step := range []func() error{
		func() error { return v.Adopt(id, templateChunks*chunk, []format.Lineage{{ID: id}}) },
		func() error { return stage(0, 20, 1, true) },
		commit,
		v.Checkpoint,
		func() error { return stage(20, 20, 50, true) },
		func() error { return stage(40, 5, 80, false) },
		v.Unstage,
		func() error { return stage(40, 7, 90, true) },
		func() error { return stage(47, 2, 99, false) },
		commit,
		d.Sync,
	} {
		if err := step(); err != nil {
			return nil, 0, err
		}
	}
	return d.Crash(newRand(1)), 0, nil
}

// edited makes the container that an input says. The first byte chooses the template and whether it is mended.
func edited(input []byte) (d *disk.Memory, t *template, mended bool) {
	all := templates()
	how := byte(0)
	if len(input) > 0 {
		how, input = input[0], input[1:]
	}
	t = all[int(how>>1)%len(all)]
	chunks := make([][]byte, len(t.chunks))
	copy(chunks, t.chunks)
	for n := 0; len(input) >= len(edit{}) && n < 64; n++ {
		e := edit(input)
		input = input[len(e):]
		i := int(e[0]) % len(chunks)
		b := append([]byte(nil), chunks[i]...)
		e.apply(b, t.chunks[int(e[11])%len(chunks)])
		chunks[i] = b
	}
	d = disk.NewMemory(fuzzDisk)
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(d.Grow(t.size))
	for i, b := range chunks {
		must(d.WriteCached(b, t.at[i]))
	}
	if how&1 != 0 {
		mend(d)
	}
	must(d.Sync())
	return d, t, how&1 != 0
}

// mend makes all checksums right.
func mend(d *disk.Memory) {
	m := &mender{d: d, pages: 100}
	super := m.read(0)
	seal(super)
	m.write(super, 0)
	m.geo = format.NewGeometry(32)
	if s, err := format.DecodeSuper(super); err == nil && s.SegmentChunks < 1024 {
		m.geo = format.NewGeometry(s.SegmentChunks)
	}
	for i := int64(1); i <= 2; i++ {
		b := m.read(i * chunk)
		h, g := le.Uint32(b[88:]), le.Uint32(b[92:])
		le.PutUint64(b[80:], uint64(m.page(format.Ref(le.Uint64(b[80:])), int(min(h, 4))-1)))
		le.PutUint64(b[96:], uint64(m.page(format.Ref(le.Uint64(b[96:])), int(min(g, 4))-1)))
		if n := le.Uint32(b[192:]); n <= format.MaxCatalog {
			cat := make([]byte, n)
			r := format.Ref(le.Uint64(b[184:]))
			if d.ReadAt(cat, int64(r.Phys())*chunk) == nil {
				le.PutUint64(b[184:], uint64(format.MakeRef(r.Phys(), format.Sum(cat))))
			}
		}
		seal(b)
		m.write(b, i*chunk)
		m.chain(le.Uint32(b[112:]), le.Uint32(b[116:]), le.Uint32(b[124:]))
	}
	for off := int64(format.DataStart) * chunk; off < d.Size(); off += chunk {
		b := m.read(off)
		if magic := string(b[:4]); magic == "CBAT" || magic == "CSUM" {
			seal(b)
			m.write(b, off)
		}
	}
}

type mender struct {
	d     *disk.Memory
	geo   format.Geometry
	pages int
}

func seal(b []byte) { le.PutUint32(b[chunk-4:], format.Sum(b[:chunk-4])) }

func (m *mender) read(off int64) []byte {
	b := make([]byte, chunk)
	_ = m.d.ReadAt(b, off) // zeroes beyond the end
	return b
}

func (m *mender) write(b []byte, off int64) {
	if off >= 0 && off+int64(len(b)) <= m.d.Size() {
		_ = m.d.WriteCached(b, off)
	}
}

// page mends what a reference leads to, and returns the reference with its checksum.
func (m *mender) page(r format.Ref, level int) format.Ref {
	off := int64(r.Phys()) * chunk
	if m.pages--; m.pages < 0 || level < 0 || !r.HasData() || off+chunk > m.d.Size() {
		return r
	}
	b := m.read(off)
	for i := 0; level > 0 && i < chunk; i += 8 {
		le.PutUint64(b[i:], uint64(m.page(format.Ref(le.Uint64(b[i:])), level-1)))
	}
	m.write(b, off)
	return format.MakeRef(r.Phys(), format.Sum(b))
}

// chain mends the log from a place on: each header names the one before, and its entries the data.
func (m *mender) chain(seg, at, prev uint32) {
	for range 40 {
		if !recovery.Fits(m.geo, at) {
			return
		}
		off := int64(m.geo.Phys(seg, at)) * chunk
		b := m.read(off)
		if string(b[:4]) != "CBAT" {
			return
		}
		le.PutUint32(b[60:], prev)
		n, data := int(le.Uint16(b[68:])), int64(0)
		for e := 96; n > 0 && e+24 <= chunk-4; e, n = e+24, n-1 {
			if format.Kind(b[e+14]) == format.KindData {
				data++
				le.PutUint32(b[e+20:], format.Sum(m.read(off+data*chunk)))
			}
		}
		seal(b)
		m.write(b, off)
		prev, at = format.HeaderCRC(b), at+1+uint32(data)
		if !recovery.Fits(m.geo, at) {
			seg, at = le.Uint32(b[64:]), 0
		}
	}
}

func addEdits(f *testing.F) {
	for t := range templates() {
		for mended := range 2 {
			how := byte(2*t + mended)
			f.Add([]byte{how})
			for _, chunk := range []byte{1, 3, 8, 20} {
				for _, at := range []byte{80, 96, 112, 200} {
					f.Add([]byte{how, chunk, 2, at, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
				}
			}
		}
	}
}

// bounded fails when do allocates more than a container of fuzzDisk bytes can be a reason for.
func bounded(t *testing.T, do func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Fatalf("%d bytes were allocated", n)
	}
}

// FuzzCheck ensures that the checker and the dump take any bytes.
func FuzzCheck(f *testing.F) {
	addEdits(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		d, _, _ := edited(input)
		defer d.Free()
		bounded(t, func() {
			r, err := recovery.Check(d, recovery.CheckOptions{})
			if err == nil {
				err = r.Print(io.Discard)
			}
			named(t, err)
			for _, o := range []recovery.DumpOptions{{Segment: 0, LBA: 13}, {Segment: 1, LBA: 599, Verbose: true}} {
				named(t, recovery.Dump(d, o, recovery.Text(io.Discard)))
			}
		})
	})
}

func named(t *testing.T, err error) {
	t.Helper()
	if err != nil && !strings.Contains(err.Error(), "memory") {
		t.Errorf("the error %q does not name the container", err)
	}
}

// FuzzOpen ensures that a volume opens, or refuses, any bytes; and that it shows nothing but what was written once: a
// container that was not mended shows a state that it had, or an error.
func FuzzOpen(f *testing.F) {
	addEdits(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		d, from, mended := edited(input)
		least := from.least
		for i := range 3 { // chunk 0 and the checkpoints
			if b := make([]byte, chunk); d.ReadAt(b, from.at[i]) != nil || !bytes.Equal(b, from.chunks[i]) {
				least = 0
			}
		}
		defer d.Free()
		bounded(t, func() {
			v, err := aodi.OpenOn(d, quiet)
			if err != nil {
				named(t, err)
				return
			}
			if !mended {
				from.shows(t, v, least)
			}
			use(t, v)
			_ = v.Close() // it may have found the damage by now
		})
	})
}

// shows ensures that each chunk is refused, or what was written, and all together a state that the volume had.
func (from *template) shows(t *testing.T, v *aodi.Volume, least int) {
	b := make([]byte, chunk)
	for c := range int64(templateChunks) {
		if err := v.ReadAt(b, c*chunk); errors.Is(err, syscall.EIO) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := from.h.prefixOf(t, v); n < least {
		t.Fatalf("shows %d records, the checkpoint held %d", n, least)
	}
}

// use does a bit of everything. Errors are fine.
func use(t *testing.T, v *aodi.Volume) {
	b := make([]byte, chunk)
	for c := range min(v.Size()/chunk, templateChunks) {
		_ = v.ReadAt(b, c*chunk)
	}
	_ = v.Extents(0, v.Size(), func(int64, uint32) bool { return true })
	end, durable := v.Pointers()
	if durable > end {
		t.Errorf("durable_ptr %d > end_ptr %d", durable, end)
	}
	for _, from := range []aodi.Position{0, end / 2, end} {
		_, _ = v.MarkAt(from)
		if r, err := v.ReadLog(from); err == nil {
			var batch aodi.LogBatch
			for range 100 {
				if r.Next(durable, 1<<20, &batch) != nil {
					break
				}
			}
			r.Close()
		}
	}
	if v.Role() == aodi.RoleMirror {
		_ = v.Stage(stagedBatch(end, 3, func(i int) uint64 { return uint64(i) }, 7), true)
		_, _ = v.Commit()
		return
	}
	for i := range int64(20) {
		_ = v.WriteAt(b, i*31*chunk, false)
	}
	_ = v.WriteAt(b[:100], 77, false)
	_ = v.Trim(0, v.Size()/2, false)
	_ = v.Flush()
}

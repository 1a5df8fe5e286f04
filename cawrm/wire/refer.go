package wire

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"cawrm/aodi/format"
)

// References are what a Packer needs for frames that refer to what the peer has.
type References struct {
	Known *Known
	// Acked is what the peer has committed, or less.
	Acked func() format.Position
	// Read fills chunk with content of a logical chunk that has that checksum, whatever it holds by now; or it cannot.
	Read func(lba uint64, crc uint32, chunk []byte) bool
}

// Resolver fills chunk with what the peer shows of a logical chunk.
type Resolver func(lba uint64, chunk []byte) error

// ErrReference is for a frame that refers to what this side does not hold, or cannot read. The source can tell the same without references.
// ErrOtherContent is the first of the two: the source was wrong, or the chunk is.
var (
	ErrReference    = errors.New("it refers to what is not held here")
	ErrOtherContent = fmt.Errorf("references lead to other content: %w", ErrReference)
)

// MaxReferences bounds the references of a frame: 2 MiB.
const MaxReferences = 512

const (
	terseFixed = 24 // refs, bytes of the table, digest
	digestSize = 16
	refSize    = 8
	dictID     = 1
	maxTable   = MaxEntries*entrySize + MaxReferences*refSize + 1<<10 // what cannot be compressed becomes a little longer

	// referLevel is the least at which frames refer: it takes reads at both sides.
	referLevel = LevelDefault
	// smallChunks is how few it must be for a table of the quick encoder: that of the better one takes long to fill.
	smallChunks = 16
)

// referrer is what a Packer has for frames that refer.
type referrer struct {
	*References
	marks                []uint64
	ends                 []int    // of each data entry, in marks
	hits                 []uint32 // slots that have a mark of the frame
	refs                 []uint64 // as on the wire
	dict                 []byte   // the content of refs
	rows, columns, table []byte
	enc                  [len(levelNames)]*zstd.Encoder // each for another dictionary in each frame
}

// Refer makes the Packer refer to what the peer has, from its first frame on: the peer must take that. Known is this Packer's until Release.
func (p *Packer) Refer(r *References) { p.refer.References = r }

// choose finds what of the peer's content looks like that of the frame, and gathers it.
func (p *Packer) choose(rec *Records) {
	r := &p.refer
	r.marks, r.ends, r.hits, r.refs, r.dict = r.marks[:0], r.ends[:0], r.hits[:0], r.refs[:0], r.dict[:0]
	for data := rec.Data; len(data) > 0; data = data[format.ChunkSize:] {
		r.marks = appendMarks(r.marks, data[:format.ChunkSize])
		r.ends = append(r.ends, len(r.marks))
	}
	for _, m := range r.marks {
		if n := r.Known.find(m); n != 0 {
			r.hits = append(r.hits, n)
		}
	}
	acked := r.Acked()
	for _, n := range best(r.hits, min(MaxReferences, 2*len(r.ends))) {
		s := &r.Known.slots[n]
		at := len(r.dict)
		r.dict = append(r.dict, zeroes[:]...)
		chunk := r.dict[at:]
		d := uint64(r.Known.base + uint32(p.window.n) - s.win)
		if old := p.window.back(d); old != nil {
			copy(chunk, old)
			r.refs = append(r.refs, d<<1|1)
		} else if s.pos <= acked && s.until >= rec.End && r.Read(s.lba, s.crc, chunk) { // K1, K2
			r.refs = append(r.refs, s.lba<<1)
		} else {
			r.dict = r.dict[:at]
			continue
		}
		if format.Sum(chunk) != s.crc { // its slot is another chunk's by now, or its place in the window is
			r.refs, r.dict = r.refs[:len(r.refs)-1], r.dict[:at]
		}
	}
}

// best are the n slots that were hit most, each once, in their order: that of what was sent.
func best(hits []uint32, n int) []uint32 {
	slices.Sort(hits)
	type votes struct{ slot, n uint32 }
	var all []votes
	for _, h := range hits {
		if len(all) == 0 || all[len(all)-1].slot != h {
			all = append(all, votes{slot: h})
		}
		all[len(all)-1].n++
	}
	slices.SortStableFunc(all, func(a, b votes) int { return cmp.Compare(b.n, a.n) })
	hits = hits[:0]
	for _, v := range all[:min(n, len(all))] {
		hits = append(hits, v.slot)
	}
	slices.Sort(hits)
	return hits
}

// passed tells Known what the frame brings. forms are those of the entries; the first of the window's numbers is from.
func (p *Packer) passed(rec *Records, forms []Form, from uint64) {
	k, r := p.refer.Known, &p.refer
	data, win := 0, k.base+uint32(from)
	for i := range rec.Entries {
		e := &rec.Entries[i]
		if e.Kind == format.KindSize {
			continue
		}
		k.replaced(e.LBA, uint64(e.Count), rec.End)
		if e.Kind != format.KindData {
			continue
		}
		if f := forms[data]; f == FormPlain || f == FormDelta {
			if len(r.ends) > 0 {
				begin := 0
				if data > 0 {
					begin = r.ends[data-1]
				}
				k.note(slot{lba: e.LBA, pos: rec.End, until: never, crc: e.CRC, win: win}, r.marks[begin:r.ends[data]])
			}
			win++
		}
		data++
	}
	if k.Last = rec.End; rec.Commit {
		k.Passed = rec.End
	}
}

// terse makes of f.Head a head with the entries as a zstd frame, and with the references; unless it has none, and would not become smaller.
func (p *Packer) terse(f *Frame) {
	r := &p.refer
	entries := f.Head[headerSize+recordsFixed:]
	r.rows = r.rows[:0]
	for _, ref := range r.refs {
		r.rows = le.AppendUint64(r.rows, ref)
	}
	r.columns = appendColumns(appendColumns(r.columns[:0], entries, entrySize), r.rows, refSize)
	r.table = p.encoder(LevelFast).EncodeAll(r.columns, r.table[:0])
	if len(r.refs) == 0 && terseFixed+len(r.table) >= len(entries) {
		return
	}
	f.Head[5] |= flagTerse
	f.Head = le.AppendUint32(f.Head[:headerSize+recordsFixed], uint32(len(r.refs)))
	f.Head = le.AppendUint32(f.Head, uint32(len(r.table)))
	f.Head = append(f.Head, digest(r.dict[:len(r.refs)*format.ChunkSize])...)
	f.Head = append(f.Head, r.table...)
}

func digest(dict []byte) []byte {
	sum := sha256.Sum256(dict)
	return sum[:digestSize]
}

// pressed is the encoder of a level with the references as its dictionary. The best level is none of them: it fills 64 MiB of tables for
// each frame, and saves a fourteenth.
func (r *referrer) pressed(level Level, chunks int) *zstd.Encoder {
	if level = min(level, LevelBetter); chunks < smallChunks {
		level = LevelDefault
	}
	with := zstd.WithEncoderDictRaw(dictID, r.dict)
	if e := r.enc[level]; e != nil {
		if err := e.ResetWithOptions(nil, with); err != nil {
			panic(err) // an option that is out of range
		}
		return e
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevels[level]), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true), zstd.WithWindowSize(2*MaxRecords), zstd.WithLowerEncoderMem(true), with)
	if err != nil {
		panic(err) // an option that is out of range
	}
	r.enc[level] = e
	return e
}

// appendColumns appends rows of size bytes so that what is alike stands together: of each u64 the difference to that of the row before, all
// first bytes, then all second ones, and so on.
func appendColumns(b, rows []byte, size int) []byte {
	n, at := len(rows)/size, len(b)
	b = append(b, make([]byte, len(rows))...)
	out := b[at:]
	for field := 0; field < size; field += 8 {
		last := uint64(0)
		for i := range n {
			v := le.Uint64(rows[i*size+field:])
			d := v - last
			if field == 16 { // count and checksum: no difference says more
				d = v
			}
			last = v
			for j := range 8 {
				out[(field+j)*n+i] = byte(d >> (8 * j))
			}
		}
	}
	return b
}

// appendRows undoes appendColumns.
func appendRows(b, columns []byte, size int) []byte {
	n, at := len(columns)/size, len(b)
	b = append(b, make([]byte, len(columns))...)
	out := b[at:]
	for field := 0; field < size; field += 8 {
		last := uint64(0)
		for i := range n {
			d := uint64(0)
			for j := range 8 {
				d |= uint64(columns[(field+j)*n+i]) << (8 * j)
			}
			if field != 16 {
				d += last
			}
			last = d
			le.PutUint64(out[i*size+field:], d)
		}
	}
	return b
}

// terseControl reads what stands behind the fixed part of a frame with the flag. Its numbers are bounded before they are used.
func (r *Reader) terseControl(n int) error {
	if r.resolve == nil {
		return fmt.Errorf("references were not agreed on: %w", ErrInvalid)
	}
	fixed := r.grow(terseFixed)
	if err := r.full(fixed); err != nil {
		return err
	}
	entries, plain := int64(le.Uint32(r.body[24:])), int64(le.Uint32(r.body[28:]))
	refs, table := int64(le.Uint32(fixed)), int64(le.Uint32(fixed[4:]))
	data := int64(n) - recordsFixed - terseFixed - table
	packed := r.head[5]&flagPacked != 0
	if entries > MaxEntries || refs > MaxReferences || table > maxTable || refs > 0 && !packed || !adds(plain, data, packed) {
		return fmt.Errorf("%d entries, %d references in %d bytes and %d bytes of data in %d bytes: %w", entries, refs, table, plain, n, ErrInvalid)
	}
	r.data = int(data)
	return r.control(int(table))
}

// unfold makes rows of the table of a terse frame, and the dictionary of its references.
func (r *Reader) unfold() (entries []byte, err error) {
	u, b := &r.unpack, r.body[recordsFixed:]
	n, refs := int(le.Uint32(r.body[24:]))*entrySize, int(le.Uint32(b))*refSize
	u.columns = sized(u.columns, n+refs)
	if err := u.expand(u.decoder(), u.columns, b[terseFixed:]); err != nil {
		return nil, err
	}
	u.rows = appendRows(appendRows(u.rows[:0], u.columns[:n], entrySize), u.columns[n:], refSize)
	if u.dict = u.dict[:0]; refs == 0 {
		return u.rows[:n], nil
	}
	u.dict = sized(u.dict, refs/refSize*format.ChunkSize)
	for i, rows := 0, u.rows[n:]; len(rows) > 0; i, rows = i+1, rows[refSize:] {
		if err := u.gather(u.dict[i*format.ChunkSize:][:format.ChunkSize], le.Uint64(rows), r.resolve); err != nil {
			return nil, err
		}
	}
	if !slices.Equal(digest(u.dict), b[8:8+digestSize]) {
		return nil, fmt.Errorf("RECORDS: of %d: %w", refs/refSize, ErrOtherContent)
	}
	return u.rows[:n], nil
}

// gather fills chunk with what a reference leads to.
func (u *unpacker) gather(chunk []byte, ref uint64, resolve Resolver) error {
	if ref&1 != 0 {
		old := u.window.back(ref >> 1)
		if old == nil {
			return fmt.Errorf("RECORDS: it refers to a chunk %d back, where there is none: %w", ref>>1, ErrInvalid)
		}
		copy(chunk, old)
		return nil
	}
	if lba := ref >> 1; lba < format.MaxLogicalSize/format.ChunkSize {
		if err := resolve(lba, chunk); err != nil {
			return fmt.Errorf("RECORDS: chunk %d: %w: %w", lba, err, ErrReference)
		}
		return nil
	}
	return fmt.Errorf("RECORDS: it refers to chunk %d: %w", ref>>1, ErrInvalid)
}

// dictDecoder is a decoder that knows the references of the frame.
func (u *unpacker) dictDecoder() *zstd.Decoder {
	with := zstd.WithDecoderDictRaw(dictID, u.dict)
	if u.dicts == nil {
		u.dicts = newDecoder(with)
	} else if err := u.dicts.ResetWithOptions(nil, with); err != nil {
		panic(err) // an option that is out of range
	}
	return u.dicts
}

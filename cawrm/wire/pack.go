package wire

import (
	"crypto/subtle"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"cawrm/aodi/format"
)

// Level is how hard a Packer tries.
type Level int

// The levels. Of source text a core takes about 230, 130, 80 and 25 MiB a second (bench/results/kernel-6.1-6.12.json).
const (
	LevelOff Level = iota
	LevelFast
	LevelDefault
	LevelBetter
	LevelBest
)

var levelNames = [...]string{"off", "fast", "default", "better", "best"}

func (l Level) String() string { return levelNames[l] }

// Form is how the content of a data entry is told.
type Form uint8

// The forms.
const (
	FormPlain  Form = 0 // it stands in the data
	FormZero   Form = 1 // zeroes only
	FormRepeat Form = 2 // that of a chunk of the window, so many back
	FormDelta  Form = 3 // it stands in the data as the exclusive or with a chunk of the window, so many back
)

// Packer makes RECORDS frames in which nothing stands twice, and of what has changed little only that. It is one end of a stream, of which each frame must reach the
// Reader at the other: what they remember is the same. It belongs to one goroutine.
type Packer struct {
	window window
	index  index
	places places
	enc    [len(levelNames)]*zstd.Encoder
	dense  bool // the last frame did not shrink
	probe  []byte
	told   []Form // of the data entries of the frame
	refer  referrer
}

// Release gives back what the Packer remembers, when its stream has ended. It is not used any more.
func (p *Packer) Release() {
	if p.refer.References != nil {
		p.refer.Known.forgetWindow(&p.window)
	}
	p.window.release()
}

// Frame is a RECORDS frame in two parts, with the memory to use again.
type Frame struct {
	Head, Data []byte

	Zeroes, Repeats int // chunks that were not sent, as they hold only zeroes, or were sent before
	Deltas          int // chunks of which only the difference was sent
	References      int // chunks that the peer has, and that the frame refers to

	plain, packed []byte
}

// Size is how many bytes the frame takes.
func (f *Frame) Size() int64 { return int64(len(f.Head) + len(f.Data)) }

// Pack makes a frame of rec. f.Data may be rec.Data, so that must be left alone until the frame was sent. Errors: ErrInvalid when
// the peer's decoder would refuse the frame.
func (p *Packer) Pack(f *Frame, rec *Records, level Level) error {
	if err := rec.check(len(rec.Data)); err != nil {
		return err
	}
	f.Head = beginRecords(f.Head[:0], rec)
	f.Zeroes, f.Repeats, f.Deltas, f.References = 0, 0, 0, 0
	refers, from := p.refer.References != nil && level >= referLevel, p.window.n
	p.refer.refs, p.refer.ends = p.refer.refs[:0], p.refer.ends[:0]
	if refers {
		p.choose(rec)
	}
	plain, packed := p.forms(f, rec, level != LevelOff), false
	f.Data = plain
	if level != LevelOff {
		f.Data, packed = p.compress(f, plain, level)
	}
	if refers {
		if !packed {
			p.refer.refs = p.refer.refs[:0]
		}
		f.References = len(p.refer.refs)
		p.terse(f)
	}
	if p.refer.References != nil {
		p.passed(rec, p.told, from)
	}
	endRecords(f.Head, len(plain), len(f.Data), packed)
	return nil
}

// forms appends the entries to f.Head and returns the data that is left to send. deltas: it will be compressed.
func (p *Packer) forms(f *Frame, rec *Records, deltas bool) []byte {
	data, plain := rec.Data, f.plain[:0]
	p.told = p.told[:0]
	kept := 0 // bytes from the start of rec.Data on of which each was to be sent: as long as that is all, nothing is copied
	for i := range rec.Entries {
		e := &rec.Entries[i]
		if e.Kind != format.KindData {
			f.Head = appendEntry(f.Head, e, FormPlain, e.Count)
			continue
		}
		chunk := data[:format.ChunkSize]
		data = data[format.ChunkSize:]
		form, back, old := p.form(e, chunk, deltas)
		p.told = append(p.told, form)
		f.Head = appendEntry(f.Head, e, form, back)
		switch form {
		case FormZero:
			f.Zeroes++
			continue
		case FormRepeat:
			f.Repeats++
			continue
		case FormDelta:
			f.Deltas++
		}
		if f.Zeroes+f.Repeats+f.Deltas == 0 {
			kept += format.ChunkSize
			continue
		}
		if len(plain) == 0 {
			plain = append(plain, rec.Data[:kept]...)
		}
		plain = append(plain, chunk...)
		if form == FormDelta {
			subtle.XORBytes(plain[len(plain)-format.ChunkSize:], chunk, old)
		}
	}
	f.plain = plain
	if len(plain) == 0 {
		return rec.Data[:kept]
	}
	return plain
}

// form chooses how a chunk is told, and remembers it as the Reader will. old is what a delta is the difference to.
func (p *Packer) form(e *format.Entry, chunk []byte, deltas bool) (form Form, back uint32, old []byte) {
	if isZero(e.CRC, chunk) {
		return FormZero, 1, nil
	}
	if d := p.index.find(&p.window, e.CRC, chunk); d > 0 {
		return FormRepeat, uint32(d), nil
	}
	form, back = FormPlain, 1
	if d := p.places.find(&p.window, e.LBA, chunk); d > 0 && deltas {
		form, back, old = FormDelta, uint32(d), p.window.back(d)
	}
	p.index.note(&p.window, e.CRC)
	p.places.note(&p.window, e.LBA)
	p.window.add(chunk)
	return form, back, old
}

const (
	probePieces = 4
	probePiece  = 4 << 10
)

// compress returns plain as a zstd frame, or as it is when that would not be smaller by a sixteenth. While data does not shrink only
// samples of it are tried.
func (p *Packer) compress(f *Frame, plain []byte, level Level) (data []byte, packed bool) {
	refers := len(p.refer.refs) > 0
	if len(plain) == 0 || p.dense && !refers && !p.promising(plain) {
		return plain, false
	}
	enc := p.encoder(level)
	if refers {
		enc = p.refer.pressed(level, len(plain)/format.ChunkSize)
	}
	f.packed = enc.EncodeAll(plain, f.packed[:0])
	p.dense = len(f.packed) > len(plain)-len(plain)/16
	if p.dense {
		return plain, false
	}
	return f.packed, true
}

func (p *Packer) promising(plain []byte) bool {
	if len(plain) <= 2*probePieces*probePiece {
		return true
	}
	step, tried, shrunk := len(plain)/probePieces, 0, 0
	for at := 0; at+probePiece <= len(plain); at += step {
		p.probe = p.encoder(LevelFast).EncodeAll(plain[at:at+probePiece], p.probe[:0])
		tried, shrunk = tried+probePiece, shrunk+len(p.probe)
	}
	return shrunk < tried-tried/16
}

var zstdLevels = [...]zstd.EncoderLevel{LevelFast: zstd.SpeedFastest, LevelDefault: zstd.SpeedDefault,
	LevelBetter: zstd.SpeedBetterCompression, LevelBest: zstd.SpeedBestCompression}

// encoder makes the encoder of a level when it is needed first: the higher ones take tens of megabytes.
func (p *Packer) encoder(level Level) *zstd.Encoder {
	if p.enc[level] == nil {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevels[level]), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true), zstd.WithWindowSize(MaxRecords), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // an option that is out of range
		}
		p.enc[level] = e
	}
	return p.enc[level]
}

// unpacker is the Reader's side of a Packer. Its memory is taken with the first frame that needs it, and is bounded by MaxRecords.
type unpacker struct {
	window window
	dec    *zstd.Decoder
	packed []byte
	plain  []byte

	// of frames that refer
	columns, rows, dict []byte
	dicts               *zstd.Decoder
}

func newDecoder(options ...zstd.DOption) *zstd.Decoder {
	d, err := zstd.NewReader(nil, append(options, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxRecords), zstd.WithDecoderMaxWindow(MaxRecords),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))...)
	if err != nil {
		panic(err) // an option that is out of range
	}
	return d
}

// decoder is one for frames without references.
func (u *unpacker) decoder() *zstd.Decoder {
	if u.dec == nil {
		u.dec = newDecoder()
	}
	return u.dec
}

// expand expands a zstd frame, which must fill into.
func (u *unpacker) expand(d *zstd.Decoder, into, packed []byte) error {
	out, err := d.DecodeAll(packed, into[:0:len(into)])
	switch {
	case err != nil:
		return fmt.Errorf("RECORDS: zstd: %w: %w", err, ErrInvalid)
	case len(out) != len(into):
		return fmt.Errorf("RECORDS: %d bytes of data where %d were announced: %w", len(out), len(into), ErrInvalid)
	}
	return nil
}

// fill makes the chunks of rec out of what was sent of them.
func (u *unpacker) fill(rec *Records, forms []told, plain []byte) error {
	data := rec.Data
	for _, f := range forms {
		chunk := data[:format.ChunkSize]
		data = data[format.ChunkSize:]
		switch f.form {
		case FormZero:
			clear(chunk)
		case FormRepeat:
			old := u.window.back(uint64(f.count))
			if old == nil {
				return fmt.Errorf("RECORDS: it repeats a chunk %d back, where there is none: %w", f.count, ErrInvalid)
			}
			copy(chunk, old)
		default:
			if &chunk[0] != &plain[0] { // it stands where it is to be unless something before it was left out
				copy(chunk, plain)
			}
			if f.form == FormDelta {
				old := u.window.back(uint64(f.count))
				if old == nil {
					return fmt.Errorf("RECORDS: it differs from a chunk %d back, where there is none: %w", f.count, ErrInvalid)
				}
				subtle.XORBytes(chunk, chunk, old)
			}
			u.window.add(chunk)
			plain = plain[format.ChunkSize:]
		}
	}
	return nil
}

// told is how a data entry's content is told.
type told struct {
	form  Form
	count uint32
}

// sized returns b with n bytes, with other memory only when it is too small.
func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

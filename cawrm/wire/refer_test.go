package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// text makes a chunk that looks like source code of its own.
func text(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 77))
	var b []byte
	for len(b) < format.ChunkSize {
		b = fmt.Appendf(b, "static int f%x(struct s%x *p) { return p->a%x; }\n", r.Uint32(), r.Uint32(), r.Uint64())
	}
	return b[:format.ChunkSize]
}

// moved is a chunk as it looks when something was put in at its front.
func moved(chunk []byte, seed uint64) []byte {
	return append(fmt.Appendf(nil, "/* %x */\n", seed), chunk...)[:format.ChunkSize]
}

// ends is a stream between a source and a peer, each with its content, and what is on its way.
type ends struct {
	t      *testing.T
	packer wire.Packer
	known  wire.Known
	frame  wire.Frame
	source map[uint64][]byte
	former map[[2]uint64][]byte // by logical chunk and checksum
	shown  map[uint64][]byte    // by the peer
	acked  format.Position
	at     format.Position
	stream bytes.Buffer
	reader *wire.Reader
	way    []wire.Records // sent, not read yet
	staged []wire.Records // read, of epochs that are not committed
	refs   int
}

func newEnds(t *testing.T) *ends {
	e := &ends{t: t, source: map[uint64][]byte{}, former: map[[2]uint64][]byte{}, shown: map[uint64][]byte{}, at: 1, acked: 1}
	e.connect()
	return e
}

// connect begins a session: what was on its way is lost.
func (e *ends) connect() {
	e.packer.Release()
	e.packer = wire.Packer{}
	e.packer.Refer(&wire.References{Known: &e.known, Acked: func() format.Position { return e.acked }, Read: func(lba uint64, crc uint32, chunk []byte) bool {
		return copy(chunk, e.former[[2]uint64{lba, uint64(crc)}]) > 0 // all that there ever was, as with a long history
	}})
	e.stream.Reset()
	e.reader = wire.NewReader(&e.stream)
	e.reader.Resolve(e.resolve)
	e.way, e.staged = nil, nil
}

var errHole = errors.New("a hole")

func (e *ends) resolve(lba uint64, chunk []byte) error {
	if copy(chunk, e.shown[lba]) == 0 {
		return errHole
	}
	return nil
}

// send packs records, and says how many bytes they take.
func (e *ends) send(rec wire.Records, l wire.Level) int {
	n := len(packed(&e.packer, &e.frame, &rec, l))
	e.stream.Write(e.frame.Head)
	e.stream.Write(e.frame.Data)
	e.refs += e.frame.References
	rec.Entries, rec.Data = append([]format.Entry(nil), rec.Entries...), bytes.Clone(rec.Data)
	if rec.Data == nil {
		rec.Data = []byte{}
	}
	e.way = append(e.way, rec)
	return n
}

// read takes the next frame at the peer.
func (e *ends) read() {
	e.t.Helper()
	got, err := decode(e.reader, all)
	if err != nil || !same(got, e.way[0]) {
		e.t.Fatalf("epoch up to %d: %v, not the same", e.way[0].End, err)
	}
	e.staged, e.way = append(e.staged, e.way[0]), e.way[1:]
}

// commit shows the next epoch that was read as a whole, if there is one.
func (e *ends) commit() {
	for i, r := range e.staged {
		if !r.Commit {
			continue
		}
		for _, r := range e.staged[:i+1] {
			apply(e.shown, &r)
		}
		e.staged = e.staged[i+1:]
		e.acked = r.End
		return
	}
}

func (e *ends) settle() {
	for len(e.way) > 0 {
		e.read()
	}
	for len(e.staged) > 0 {
		e.commit()
	}
}

func apply(content map[uint64][]byte, r *wire.Records) {
	data := r.Data
	for _, x := range r.Entries {
		if x.Kind == format.KindData {
			content[x.LBA], data = data[:format.ChunkSize], data[format.ChunkSize:]
			continue
		}
		for i := range uint64(x.Count) {
			delete(content, x.LBA+i)
		}
	}
}

// write is an epoch of chunks, at those places.
func (e *ends) write(lbas []uint64, chunks [][]byte) wire.Records {
	r := recordsOf(e.at, chunks...)
	r.Entries = r.Entries[:len(chunks)] // no discard
	for i, lba := range lbas {
		r.Entries[i].LBA = lba
		e.former[[2]uint64{lba, uint64(r.Entries[i].CRC)}] = chunks[i]
	}
	e.at = r.End
	apply(e.source, &r)
	return r
}

// TestReferencesHold ensures that a peer which is anywhere between what it has acknowledged and what was sent resolves all references, whatever
// was overwritten, discarded, sent in a jump or lost with the link, and that these are used.
func TestReferencesHold(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("CAWRM_SEED"), 10, 64); err == nil {
		seed = s
	}
	defer func() {
		if t.Failed() {
			t.Logf("to replay: CAWRM_SEED=%d", seed)
		}
	}()
	random := rand.New(rand.NewPCG(seed, 2))
	e, jumps, lost := newEnds(t), 0, 0
	var since []wire.Records // not acknowledged
	any := func() []byte {   // one of the chunks that there are
		for _, c := range e.source {
			return c
		}
		return text(0)
	}
	for step := range 800 {
		level := wire.LevelDefault
		if random.IntN(8) == 0 {
			level = wire.LevelFast
		}
		switch n := random.IntN(20); {
		case n < 8:
			var lbas []uint64
			var chunks [][]byte
			for range 1 + random.IntN(6) {
				c := text(random.Uint64N(1 << 30))
				if random.IntN(3) > 0 {
					c = moved(any(), random.Uint64())
				}
				lbas, chunks = append(lbas, random.Uint64N(200)), append(chunks, c)
			}
			r := e.write(lbas, chunks)
			since = append(since, r)
			e.send(r, level)
		case n == 8:
			r := wire.Records{First: e.at, End: e.at + 1, Time: 1, Commit: true, Data: []byte{},
				Entries: []format.Entry{{Birth: e.at, LBA: random.Uint64N(200), Kind: format.KindDiscard, Count: 1 + random.Uint32N(40)}}}
			e.at = r.End
			apply(e.source, &r)
			since = append(since, r)
			e.send(r, level)
		case n < 13 && len(e.way) > 0:
			e.read()
		case n < 17:
			e.commit()
		case n == 17 && len(e.way) > 0: // the link is lost, and what was not committed is sent again, in order or as one jump
			lost++
			e.connect()
			var again []wire.Records
			jump := random.IntN(2) == 0
			for _, r := range since {
				if r.End > e.acked {
					again = append(again, r)
					jump = jump || r.Jump // it was begun
				}
			}
			if since = again; len(again) > 0 && jump {
				jumps++
				since = []wire.Records{{First: e.acked, End: e.at, Jump: true}}
				e.jump(e.acked, random, level)
				break
			}
			for _, r := range again {
				e.send(r, level)
			}
		}
		if step%100 == 99 {
			e.settle()
			if !maps.EqualFunc(e.source, e.shown, bytes.Equal) {
				t.Fatal("the peer has other content")
			}
			since = nil
		}
	}
	if e.refs < 100 || jumps == 0 || lost == 0 {
		t.Errorf("%d references, %d jumps, %d links lost: too few to tell", e.refs, jumps, lost)
	}
}

// jump sends all that there is as one jump epoch of several frames.
func (e *ends) jump(first format.Position, random *rand.Rand, level wire.Level) {
	part := wire.Records{First: first, End: e.at, Time: 1, Jump: true, Data: []byte{}}
	flush := func() {
		e.send(part, level)
		part.Entries, part.Data = part.Entries[:0], part.Data[:0]
	}
	for lba := range uint64(240) {
		c, ok := e.source[lba]
		x := format.Entry{Birth: e.at - 1, LBA: lba, Kind: format.KindDiscard, Count: 1}
		if ok {
			x.Kind, x.CRC = format.KindData, format.Sum(c)
			part.Data = append(part.Data, c...)
		}
		part.Entries = append(part.Entries, x)
		if random.IntN(20) == 0 {
			flush()
		}
	}
	flush()
	part.Commit = true
	flush()
}

// TestReferencesSave ensures that text which the peer has elsewhere, moved by some bytes, is not sent again, after the window has been left
// behind and over connections, and that the table of a frame is smaller than its entries.
func TestReferencesSave(t *testing.T) {
	e := newEnds(t)
	const n = 128
	var lbas []uint64
	var was, is [][]byte
	for i := range uint64(n) {
		lbas, was, is = append(lbas, i), append(was, text(i)), append(is, moved(text(i), i))
	}
	full := e.send(e.write(lbas, was), wire.LevelDefault)
	e.settle()
	e.connect()
	for i := range lbas {
		lbas[i] += 1000
	}
	again := e.send(e.write(lbas, is), wire.LevelDefault)
	e.settle()
	if again > full/10 || e.refs < n/2 {
		t.Errorf("%d bytes for text that was moved, %d for the text; %d references", again, full, e.refs)
	}
}

// TestReferenceThatDoesNotHold ensures that a peer which holds something else, or nothing, where a frame refers to takes nothing of it.
func TestReferenceThatDoesNotHold(t *testing.T) {
	for name, change := range map[string]func(shown map[uint64][]byte){
		"other content": func(shown map[uint64][]byte) { shown[1] = edited(shown[1], 1) },
		"a hole":        func(shown map[uint64][]byte) { delete(shown, 1) },
	} {
		e := newEnds(t)
		e.send(e.write([]uint64{1, 2}, [][]byte{text(1), text(2)}), wire.LevelDefault)
		e.settle()
		e.connect()
		change(e.shown)
		e.send(e.write([]uint64{3}, [][]byte{moved(text(1), 5)}), wire.LevelDefault)
		if e.refs == 0 {
			t.Fatal("no references")
		}
		if got, err := decode(e.reader, all); !errors.Is(err, wire.ErrReference) || errors.Is(err, wire.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// terseFrame is one that refers to a chunk which the peer has and one of the window, and how long its control part is.
func terseFrame(t testing.TB) (stream []byte, frame []byte, control int) {
	var p wire.Packer
	var known wire.Known
	var f wire.Frame
	chunks := map[uint64][]byte{0: text(0)}
	p.Refer(&wire.References{Known: &known, Acked: func() format.Position { return 1 << 40 },
		Read: func(lba uint64, crc uint32, chunk []byte) bool { return copy(chunk, chunks[lba]) > 0 }})
	a := recordsOf(1, text(0))
	packed(&p, &f, &a, wire.LevelDefault)
	p.Release()
	p = wire.Packer{}
	p.Refer(&wire.References{Known: &known, Acked: func() format.Position { return 1 << 40 },
		Read: func(lba uint64, crc uint32, chunk []byte) bool { return copy(chunk, chunks[lba]) > 0 }})
	var more [][]byte
	for i := range uint64(40) {
		more = append(more, text(100+i))
	}
	b := recordsOf(3, more...)
	for i := range more {
		b.Entries[i].LBA = uint64(100 + i)
	}
	stream = packed(&p, &f, &b, wire.LevelDefault)
	for i := range more {
		more[i] = moved(text(100+uint64(i)), 1)
	}
	more[0] = moved(text(0), 3)
	c := recordsOf(b.End, more...)
	for i := range more {
		c.Entries[i].LBA = uint64(200 + i)
	}
	frame = packed(&p, &f, &c, wire.LevelDefault)
	if f.References < 20 || f.Head[5]&8 == 0 {
		t.Fatalf("%d references, flags %#x", f.References, f.Head[5])
	}
	return stream, frame, len(f.Head) - 16
}

func terseReader(stream []byte) *wire.Reader {
	r := wire.NewReader(bytes.NewReader(stream))
	r.Resolve(func(lba uint64, chunk []byte) error {
		if lba != 0 {
			return errHole
		}
		copy(chunk, text(0))
		return nil
	})
	return r
}

// TestHostileReferences ensures that a frame which refers to nonsense is refused before much is made of it.
func TestHostileReferences(t *testing.T) {
	stream, good, control := terseFrame(t)
	r := terseReader(append(bytes.Clone(stream), good...))
	for range 2 {
		if _, err := decode(r, all); err != nil {
			t.Fatal(err)
		}
	}
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return reseal(b, control)
	}
	flags := func(f byte) []byte {
		b := bytes.Clone(good)
		b[5] = f
		return reseal(b, control)
	}
	const table = 16 + 32 + 24
	for name, b := range map[string][]byte{
		"a million references":      put(48, 1<<20),
		"one more than there may":   put(48, wire.MaxReferences+1),
		"one more than there is":    put(48, uint32(good[48])+1),
		"none":                      put(48, 0),
		"a table of 4 GiB":          put(52, 1<<32-1),
		"a table beyond the frame":  put(52, uint32(len(good))),
		"a table that is shorter":   put(52, 5),
		"a million entries":         put(40, 1<<20),
		"16384 entries":             put(40, 16384),
		"no entries":                put(40, 0),
		"data of 4 GiB":             put(44, 1<<32-1),
		"not packed, and refers":    flags(8 | 1),
		"a table that is no zstd":   put(table, 0x12345678),
		"another digest":            put(56, 0),
		"a flag that nobody knows":  flags(8 | 4 | 1 | 16),
		"an ordinary frame, packed": flags(4 | 1),
	} {
		r := terseReader(append(bytes.Clone(stream), b...))
		if _, err := decode(r, all); err != nil {
			t.Fatal(err)
		}
		if _, err := decode(r, all); !errors.Is(err, wire.ErrInvalid) && !errors.Is(err, wire.ErrReference) && !errors.Is(err, wire.ErrChecksum) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The window of this one is empty, and nothing was agreed on with that one.
	if _, err := decode(terseReader(good), all); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("beyond the window: %v", err)
	}
	if _, err := decode(wire.NewReader(bytes.NewReader(good)), all); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("not agreed on: %v", err)
	}
}

// FuzzTerse ensures that no frame with references makes the reader fail in another way than by saying so, or makes more of it than a
// frame may hold.
func FuzzTerse(f *testing.F) {
	stream, good, control := terseFrame(f)
	f.Add(good, control)
	f.Fuzz(func(t *testing.T, b []byte, control int) {
		if len(b) >= 16 && control >= 0 {
			b = reseal(bytes.Clone(b), min(control, len(b)-16))
		}
		r := terseReader(append(bytes.Clone(stream), b...))
		for range 3 {
			got, err := decode(r, wire.Of(wire.TypeRecords))
			if err != nil {
				return
			}
			if rec := got.(wire.Records); len(rec.Data) > wire.MaxRecords || len(rec.Entries) > wire.MaxEntries {
				t.Fatalf("%d entries, %d bytes", len(rec.Entries), len(rec.Data))
			}
		}
	})
}

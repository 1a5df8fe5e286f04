package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// chunkOf makes a chunk of a kind: 0 zeroes, 1 text, else noise.
func chunkOf(kind byte, seed uint64) []byte {
	b := make([]byte, format.ChunkSize)
	switch {
	case kind == 0:
	case kind == 1:
		for i := range b {
			b[i] = "a line of text that comes back\n"[(i+int(seed))%31]
		}
	default:
		r := rand.NewPCG(seed, uint64(kind))
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
	}
	return b
}

// recordsOf makes records with one data entry a chunk, and a discard behind them.
func recordsOf(first format.Position, chunks ...[]byte) wire.Records {
	r := wire.Records{First: first, Time: 1, Commit: true, Data: []byte{}}
	for i, c := range chunks {
		r.Entries = append(r.Entries, format.Entry{Birth: first + format.Position(i), LBA: uint64(i), Kind: format.KindData, Count: 1, CRC: format.Sum(c)})
		r.Data = append(r.Data, c...)
	}
	r.End = first + format.Position(len(chunks)) + 1
	r.Entries = append(r.Entries, format.Entry{Birth: r.End - 1, LBA: 99, Kind: format.KindDiscard, Count: 3})
	return r
}

// same compares as cmp does, but megabytes a second.
func same(got any, want wire.Records) bool {
	g, ok := got.(wire.Records)
	equal := ok && bytes.Equal(g.Data, want.Data)
	g.Data, want.Data = nil, nil
	return equal && cmp.Equal(g, want)
}

// packed is what Pack makes, in one piece.
func packed(p *wire.Packer, f *wire.Frame, r *wire.Records, l wire.Level) []byte {
	if err := p.Pack(f, r, l); err != nil {
		panic(err)
	}
	return append(bytes.Clone(f.Head), f.Data...)
}

// packedFrames is a stream with every form in it.
func packedFrames(l wire.Level) []byte {
	var p wire.Packer
	var f wire.Frame
	a := recordsOf(1, chunkOf(1, 0), chunkOf(0, 0), chunkOf(1, 0), chunkOf(2, 5))
	b := recordsOf(6, chunkOf(2, 5), chunkOf(1, 7))
	c := recordsOf(9, chunkOf(0, 0), edited(chunkOf(1, 7), 1))
	return append(append(packed(&p, &f, &a, l), packed(&p, &f, &b, l)...), packed(&p, &f, &c, l)...)
}

// edited is a chunk with some of its bytes changed.
func edited(chunk []byte, seed uint64) []byte {
	b, r := bytes.Clone(chunk), rand.New(rand.NewPCG(seed, 9))
	for range 4 {
		binary.LittleEndian.PutUint32(b[r.IntN(len(b)-4):], r.Uint32())
	}
	return b
}

// TestPackIsUndone ensures that what the reader makes of a stream is what was packed, at each level, across frames, and
// when the window has gone round.
func TestPackIsUndone(t *testing.T) {
	for l := wire.LevelOff; l <= wire.LevelBest; l++ {
		random := rand.New(rand.NewPCG(1, uint64(l)))
		var p wire.Packer
		var f wire.Frame
		var stream []byte
		var sent []wire.Records
		at, zero, repeats, deltas, frames := format.Position(1), 0, 0, 0, 12
		last := map[int][]byte{} // content of logical chunks
		if l == wire.LevelBest {
			frames = 3
		}
		for range frames {
			var chunks [][]byte
			for range random.IntN(300) {
				c, n := chunkOf(byte(random.IntN(4)), uint64(random.IntN(3000))), len(chunks)
				if was := last[n]; was != nil && random.IntN(3) == 0 {
					c = edited(was, random.Uint64())
				}
				chunks, last[n] = append(chunks, c), c
			}
			r := recordsOf(at, chunks...)
			at = r.End
			stream = append(stream, packed(&p, &f, &r, l)...)
			sent = append(sent, r)
			zero, repeats, deltas = zero+f.Zeroes, repeats+f.Repeats, deltas+f.Deltas
		}
		r := wire.NewReader(bytes.NewReader(stream))
		for i := range sent {
			got, err := decode(r, all)
			if err != nil || !same(got, sent[i]) {
				t.Fatalf("level %v, frame %d: %v, not the same", l, i, err)
			}
		}
		if zero == 0 || repeats == 0 {
			t.Errorf("level %v: %d chunks of zeroes, %d repeats", l, zero, repeats)
		}
		if (deltas > 0) != (l > wire.LevelOff) {
			t.Errorf("level %v: %d deltas", l, deltas)
		}
	}
}

// TestPackSaves ensures that zeroes and repeats take no data, text takes little, and noise no more than it has.
func TestPackSaves(t *testing.T) {
	var text, zero, same, noise [][]byte
	for i := range uint64(256) {
		text, zero, same, noise = append(text, chunkOf(1, i%31)), append(zero, chunkOf(0, 0)), append(same, chunkOf(2, 1)), append(noise, chunkOf(2, i))
	}
	const entries = 16 + 32 + 257*24
	for name, tt := range map[string]struct {
		chunks [][]byte
		level  wire.Level
		want   int
	}{
		"zeroes":            {zero, wire.LevelOff, entries},
		"the same":          {same, wire.LevelOff, entries + format.ChunkSize},
		"text":              {text, wire.LevelFast, entries + 256*format.ChunkSize/20},
		"noise":             {noise, wire.LevelFast, entries + 256*format.ChunkSize},
		"noise, best level": {noise, wire.LevelBest, entries + 256*format.ChunkSize},
	} {
		var p wire.Packer
		var f wire.Frame
		r := recordsOf(1, tt.chunks...)
		for round := range 3 {
			if n := len(packed(&p, &f, &r, tt.level)); n > tt.want {
				t.Errorf("%s, round %d: %d bytes, want at most %d", name, round, n, tt.want)
			}
			for i := range tt.chunks { // else they would all be repeats
				if name == "noise" || name == "noise, best level" {
					c := chunkOf(2, uint64(1000*(round+1)+i))
					copy(r.Data[i*format.ChunkSize:], c)
					r.Entries[i].CRC = format.Sum(c)
				}
			}
		}
	}
}

// TestPackDeltas ensures that of a chunk which was sent lately and has changed a little only that is sent, also when nothing of it can
// be compressed, and that one which has changed much is not told as a delta.
func TestPackDeltas(t *testing.T) {
	var p wire.Packer
	var f wire.Frame
	const n, control = 256, 16 + 32 + 257*24
	var chunks [][]byte
	for i := range uint64(n) {
		chunks = append(chunks, chunkOf(2, i))
	}
	for round := range 20 { // through the window more than once
		r := recordsOf(format.Position(1+round*(n+1)), chunks...)
		size := len(packed(&p, &f, &r, wire.LevelFast))
		if round > 0 && (size > control+n*64 || f.Deltas != n) {
			t.Fatalf("round %d: %d bytes for 16 changed ones in each of %d chunks, %d deltas", round, size, n, f.Deltas)
		}
		for i := range chunks {
			chunks[i] = edited(chunks[i], uint64(round*n+i))
		}
	}
	for i := range chunks {
		chunks[i] = chunkOf(2, uint64(1000+i))
	}
	r := recordsOf(1<<20, chunks...)
	if packed(&p, &f, &r, wire.LevelFast); f.Deltas > 0 {
		t.Errorf("%d chunks that are wholly new were told as deltas", f.Deltas)
	}
}

// TestPackNotices ensures that text is compressed again after noise was not.
func TestPackNotices(t *testing.T) {
	var p wire.Packer
	var f wire.Frame
	at := format.Position(1)
	size := func(kind byte, from uint64) int {
		var chunks [][]byte
		for i := range uint64(128) {
			c := chunkOf(kind, from+i)
			binary.LittleEndian.PutUint64(c, from+i) // no two the same
			chunks = append(chunks, c)
		}
		r := recordsOf(at, chunks...)
		at = r.End
		return len(packed(&p, &f, &r, wire.LevelFast))
	}
	if n := size(2, 0); n < 128*format.ChunkSize {
		t.Fatalf("noise in %d bytes", n)
	}
	if n := size(1, 10000); n > 64*format.ChunkSize {
		t.Errorf("text after noise in %d bytes", n)
	}
}

// TestHostilePacks ensures that what does not add up is refused before much is made of it: this is where 2 MiB could become more.
func TestHostilePacks(t *testing.T) {
	var p wire.Packer
	var f wire.Frame
	r := recordsOf(1, chunkOf(1, 0), chunkOf(1, 1), chunkOf(0, 0))
	good := packed(&p, &f, &r, wire.LevelFast)
	control := 32 + 24*len(r.Entries)
	head := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return reseal(b, control)
	}
	zip := func(n int) []byte {
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(make([]byte, n), nil)
	}
	with := func(data []byte) []byte {
		b := append(bytes.Clone(good[:16+control]), data...)
		binary.LittleEndian.PutUint32(b[8:], uint32(control+len(data)))
		return reseal(b, control)
	}
	form := func(entry int, form byte, count uint32) func(b []byte) {
		return func(b []byte) {
			b[48+24*entry+15] = form
			binary.LittleEndian.PutUint32(b[48+24*entry+16:], count)
		}
	}
	for name, b := range map[string][]byte{
		"no zstd frame":               with([]byte("this is no zstd frame at all")),
		"too much in it":              with(zip(1 << 30)),
		"one byte too much":           with(zip(2*format.ChunkSize + 1)),
		"one byte too little":         with(zip(2*format.ChunkSize - 1)),
		"nothing":                     with(nil),
		"a dictionary":                with([]byte("\x28\xb5\x2f\xfd\x23\x01\x00\x00\x00\x00\x01\x00\x00")),
		"a window of 3 GiB":           with([]byte("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")),
		"longer packed than not":      with(make([]byte, 2*format.ChunkSize)),
		"unknown form":                head(form(0, 9, 1)),
		"a form of a discard":         head(form(3, 1, 3)),
		"a delta to nothing":          head(form(0, 3, 1)),
		"a delta to itself":           head(form(1, 3, 0)),
		"a delta beyond the window":   head(form(1, 3, 2)),
		"a repeat of nothing":         head(form(2, 2, 5)),
		"a repeat of itself":          head(form(2, 2, 0)),
		"a repeat beyond the window":  head(form(2, 2, 1<<31)),
		"one more that is not there":  head(form(2, 0, 1)),
		"two zero chunks in one":      head(form(2, 1, 2)),
		"data of 4 GiB":               head(func(b []byte) { binary.LittleEndian.PutUint32(b[44:], 1<<32-1) }),
		"a chunk of data for nothing": head(func(b []byte) { binary.LittleEndian.PutUint32(b[44:], 3*format.ChunkSize) }),
	} {
		if _, err := decode(wire.NewReader(bytes.NewReader(b)), all); !errors.Is(err, wire.ErrInvalid) && !errors.Is(err, wire.ErrMagic) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bomb := wire.Records{First: 1, End: 10000, Data: []byte{}}
	for i := range format.Position(1000) {
		bomb.Entries = append(bomb.Entries, format.Entry{Birth: 1 + i, Kind: format.KindData, Count: 1})
	}
	bomb.Data = make([]byte, 1000*format.ChunkSize)
	if err := p.Pack(&f, &bomb, wire.LevelFast); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("4 MB in one frame: %v", err)
	}
}

// FuzzPack ensures that whatever chunks are shipped arrive as they are.
func FuzzPack(f *testing.F) {
	f.Add([]byte{0, 1, 2, 2, 1, 0, 3, 3}, byte(1))
	f.Add([]byte{255, 254, 255, 7, 7, 7}, byte(3))
	f.Fuzz(func(t *testing.T, kinds []byte, level byte) {
		var p wire.Packer
		var fr wire.Frame
		var stream []byte
		var sent []wire.Records
		at := format.Position(1)
		for len(kinds) > 0 {
			n := min(len(kinds), 1+int(kinds[0])%64)
			var chunks [][]byte
			for _, k := range kinds[:n] {
				chunks = append(chunks, chunkOf(k%4, uint64(k/16)))
			}
			kinds = kinds[n:]
			r := recordsOf(at, chunks...)
			at = r.End
			stream = append(stream, packed(&p, &fr, &r, wire.Level(level%4))...)
			sent = append(sent, r)
		}
		r := wire.NewReader(bytes.NewReader(stream))
		for i := range sent {
			if got, err := decode(r, all); err != nil || !same(got, sent[i]) {
				t.Fatalf("frame %d: %v", i, err)
			}
		}
	})
}

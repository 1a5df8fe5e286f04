package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

var all = wire.Of(wire.TypeRanges, wire.TypeFollow, wire.TypeHandover, wire.TypeTaken, wire.TypeHello, wire.TypeWelcome, wire.TypeRefuse, wire.TypeRecords, wire.TypeAck, wire.TypeBeat, wire.TypeSnapshot, wire.TypeKept)

func uuid(b byte) (u format.UUID) {
	for i := range u {
		u[i] = b + byte(i)
	}
	return u
}

var (
	hello = wire.Hello{KeepAlive: 2 * time.Second, Capabilities: 5, Volume: uuid(0x10), Container: uuid(0x40), Size: 1 << 30,
		DurablePtr: 0x1122334455, Name: "vm1", Lineage: []format.Lineage{{ID: uuid(0x70)}, {ID: uuid(0x90), Start: 77}}}
	welcome = wire.Welcome{Capabilities: 1, Volume: uuid(0x10), SyncPtr: 1000, Name: "peer", Lineage: []format.Lineage{{ID: uuid(0x70)}}}
	empty   = wire.Welcome{Name: "peer"}
	primary = wire.Welcome{Primary: true, Volume: uuid(0x10), SyncPtr: 1<<48 + 5, Name: "peer", Lineage: []format.Lineage{{ID: uuid(0x70)}, {ID: uuid(0x90), Start: 77}}}
	branch  = wire.Welcome{Branch: true, Volume: uuid(0x10), SyncPtr: 1000, Got: format.Reached{{Base: 1<<48 + 9, Cursor: 3}}, Name: "peer", Lineage: []format.Lineage{{ID: uuid(0x70)}}}
	partial = wire.Welcome{Volume: uuid(0x10), SyncPtr: 1000, Got: format.Reached{{Base: 3000, Cursor: 7}, {Base: 2000, Cursor: 99}}, Name: "peer", Lineage: []format.Lineage{{ID: uuid(0x70)}}}
	whose   = wire.Welcome{Capabilities: wire.CapContainer, Container: uuid(0x40), Volume: uuid(0x10), SyncPtr: 1000, Got: partial.Got, Name: "peer", Lineage: partial.Lineage}
	ranges  = []wire.Range{{First: 0, End: 5}, {First: 5, End: 6}, {First: 1 << 20, End: 1 << 32}}
	records = wire.Records{First: 100, End: 104, Time: 1700000000_000000000, Commit: true, Entries: []format.Entry{
		{Birth: 100, LBA: 7, Kind: format.KindData, Count: 1, CRC: 0xdeadbeef},
		{Birth: 101, LBA: 1 << 31, Kind: format.KindDiscard, Count: 1 << 20},
		{Birth: 103, LBA: 9, Kind: format.KindZero, Count: 2},
	}, Data: bytes.Repeat([]byte{0xab}, format.ChunkSize)}
)

var snapshot = wire.Snapshot{Position: 104, Time: 1_700_000_000_000_000_000, Size: 1 << 20, Name: "monday"}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func recordsFrame(r *wire.Records) []byte { return append(must(wire.AppendRecords(nil, r)), r.Data...) }

// frames are all kinds of frames, encoded, with what they must decode to.
func frames() []struct {
	name  string
	bytes []byte
	want  any
} {
	return []struct {
		name  string
		bytes []byte
		want  any
	}{
		{"hello", must(wire.AppendHello(nil, &hello)), hello},
		{"welcome", must(wire.AppendWelcome(nil, &welcome)), welcome},
		{"welcome_empty", must(wire.AppendWelcome(nil, &empty)), empty},
		{"refuse", wire.AppendRefuse(nil, wire.CodeBusy, "busy"), "busy: busy"},
		{"records", recordsFrame(&records), records},
		{"ack", wire.AppendAck(nil, 104), format.Position(104)},
		{"welcome_primary", must(wire.AppendWelcome(nil, &primary)), primary},
		{"welcome_branch", must(wire.AppendWelcome(nil, &branch)), branch},
		{"welcome_partial", must(wire.AppendWelcome(nil, &partial)), partial},
		{"welcome_container", must(wire.AppendWelcome(nil, &whose)), whose},
		{"ranges", must(wire.AppendRanges(nil, ranges, true)), ranges},
		{"handover", wire.AppendHandover(nil, 1<<48+7), format.Position(1<<48 + 7)},
		{"follow", wire.AppendFollow(nil), nil},
		{"taken", wire.AppendTaken(nil), nil},
		{"beat", wire.AppendBeat(nil), nil},
		{"snapshot", must(wire.AppendSnapshot(nil, &snapshot)), snapshot},
		{"kept", wire.AppendKept(nil, &wire.Kept{Position: 104}), wire.Kept{Position: 104}},
		{"kept_not", wire.AppendKept(nil, &wire.Kept{Position: 104, Declined: "taken"}), wire.Kept{Position: 104, Declined: "taken"}},
	}
}

// decode reads one frame and takes it.
func decode(r *wire.Reader, allow wire.Set) (any, error) {
	t, err := r.Next(allow)
	if err != nil {
		return nil, err
	}
	switch t {
	case wire.TypeHello:
		return r.Hello()
	case wire.TypeWelcome:
		return r.Welcome()
	case wire.TypeRefuse:
		code, text := r.Refuse()
		return fmt.Sprintf("%v: %s", code, text), nil
	case wire.TypeRecords:
		var rec wire.Records
		err := r.Records(&rec)
		return rec, err
	case wire.TypeAck:
		return r.Ack(), nil
	case wire.TypeRanges:
		ranges, _, err := r.Ranges()
		return ranges, err
	case wire.TypeHandover:
		return r.Handover(), nil
	case wire.TypeSnapshot:
		return r.Snapshot()
	case wire.TypeKept:
		return r.Kept(), nil
	}
	return nil, nil
}

// TestGolden holds the bytes of version 3 against those that were written first. UPDATE=1 writes new ones.
func TestGolden(t *testing.T) {
	for _, f := range frames() {
		path := filepath.Join("testdata", "v3", f.name+".hex")
		got := hex.Dump(f.bytes[:min(len(f.bytes), 512)])
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: the bytes have changed (-released +now):\n%s", f.name, diff)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	var stream []byte
	for _, f := range frames() {
		stream = append(stream, f.bytes...)
	}
	r := wire.NewReader(bytes.NewReader(stream))
	for _, f := range frames() {
		got, err := decode(r, all)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if diff := cmp.Diff(f.want, got); diff != "" {
			t.Errorf("%s (-sent +received):\n%s", f.name, diff)
		}
	}
	if _, err := r.Next(all); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
}

// TestSkippedData: a RECORDS of which the data was not taken does not upset the next frame.
func TestSkippedData(t *testing.T) {
	r := wire.NewReader(bytes.NewReader(append(recordsFrame(&records), wire.AppendAck(nil, 9)...)))
	if _, err := r.Next(all); err != nil {
		t.Fatal(err)
	}
	if got, err := decode(r, all); err != nil || got != format.Position(9) {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestTruncated cuts each frame at each byte.
func TestTruncated(t *testing.T) {
	for _, f := range frames() {
		for i := range len(f.bytes) {
			want := io.ErrUnexpectedEOF
			if i == 0 {
				want = io.EOF
			}
			if _, err := decode(wire.NewReader(bytes.NewReader(f.bytes[:i])), all); !errors.Is(err, want) {
				t.Fatalf("%s cut at %d: %v, want %v", f.name, i, err, want)
			}
		}
	}
}

// TestFlipped flips each bit of each frame's header and control part; none passes as the original.
func TestFlipped(t *testing.T) {
	for _, f := range frames() {
		control := len(f.bytes)
		if f.name == "records" {
			control -= len(records.Data)
		}
		for i := range control * 8 {
			b := bytes.Clone(f.bytes)
			b[i/8] ^= 1 << (i % 8)
			if got, err := decode(wire.NewReader(bytes.NewReader(b)), all); err == nil {
				t.Fatalf("%s with bit %d flipped: accepted as %v", f.name, i, got)
			}
		}
	}
}

// reseal mends the checksum of a frame after its fields were changed.
func reseal(b []byte, control int) []byte {
	crc := format.Sum(append(bytes.Clone(b[:12]), b[16:16+control]...))
	b[12], b[13], b[14], b[15] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	return b
}

// TestRefused is the table of what a decoder must not take, though the checksum is right.
func TestRefused(t *testing.T) {
	change := func(f func(*wire.Records)) []byte {
		good := recordsFrame(&records)
		bad := records
		bad.Entries = append([]format.Entry(nil), records.Entries...)
		f(&bad)
		// The encoder refuses it, so the bytes are put in place by hand.
		if _, err := wire.AppendRecords(nil, &bad); !errors.Is(err, wire.ErrInvalid) {
			t.Errorf("the encoder takes %+v: %v", bad, err)
		}
		put := func(at int, v uint64, n int) {
			for i := range n {
				good[at+i] = byte(v >> (8 * i))
			}
		}
		put(16, uint64(bad.First), 8)
		put(24, uint64(bad.End), 8)
		for i, e := range bad.Entries {
			at := 48 + 24*i
			put(at, uint64(e.Birth), 8)
			put(at+8, e.LBA, 6)
			put(at+14, uint64(e.Kind), 1)
			put(at+16, uint64(e.Count), 4)
		}
		return reseal(good, 32+3*24)
	}
	beat := func(at int, v byte) []byte {
		b := wire.AppendBeat(nil)
		b[at] = v
		return reseal(b, 0)
	}
	h := func(f func(*wire.Hello)) []byte {
		c := hello
		f(&c)
		return must(wire.AppendHello(nil, &c))
	}
	version := must(wire.AppendHello(nil, &hello))
	version[16] = 1
	ofAnother := reseal(version, len(version)-16)
	newer := append([]byte("CWRM\x01\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"), 9, 0, 0xff)

	tests := []struct {
		name  string
		bytes []byte
		allow wire.Set
		want  error
		says  string
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), all, wire.ErrMagic, `"GET / HTTP/1.1\r\n"`},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghi"), all, wire.ErrMagic, "other side says"},
		{"NBD", []byte("NBDMAGICIHAVEOPT\x00\x03"), all, wire.ErrMagic, "NBDMAGIC"},
		{"short garbage", []byte("SSH"), all, wire.ErrMagic, `"SSH"`},
		{"zeroes", make([]byte, 100), all, wire.ErrMagic, ""},
		{"garbage later", append(wire.AppendBeat(nil), "xxxxxxxxxxxxxxxxxxxx"...), all, wire.ErrMagic, "after frame 1"},
		{"unknown type", beat(4, 77), all, wire.ErrInvalid, "type 77"},
		{"type beyond sets", beat(4, 255), all, wire.ErrInvalid, "type 255"},
		{"unknown flag", beat(5, 1), all, wire.ErrInvalid, "flags"},
		{"reserved byte", beat(7, 1), all, wire.ErrInvalid, "flags"},
		{"long beat", beat(8, 1), all, wire.ErrInvalid, "1 bytes, must be 0 to 0"},
		{"huge hello", append([]byte("CWRM\x01\x00\x00\x00\xff\xff\xff\xff"), 0, 0, 0, 0), all, wire.ErrInvalid, "4294967295 bytes"},
		{"huge records", append([]byte("CWRM\x04\x00\x00\x00\x01\x00\x20\x00"), 0, 0, 0, 0), all, wire.ErrInvalid, "2097153 bytes"},
		{"records from a stranger", recordsFrame(&records), wire.Of(wire.TypeHello), wire.ErrUnexpected, "RECORDS"},
		{"another version", ofAnother, all, wire.ErrVersion, "the other side speaks 1, this program 3"},
		{"another version, another layout", reseal(newer, 3), all, wire.ErrVersion, "speaks 9"},
		{"hello: no size", h(func(h *wire.Hello) { h.Size = 0 }), all, wire.ErrInvalid, ""},
		{"hello: negative size", h(func(h *wire.Hello) { h.Size = -4096 }), all, wire.ErrInvalid, ""},
		{"hello: odd size", h(func(h *wire.Hello) { h.Size = 4097 }), all, wire.ErrInvalid, ""},
		{"hello: huge size", h(func(h *wire.Hello) { h.Size = 32 << 40 }), all, wire.ErrInvalid, ""},
		{"hello: no volume", h(func(h *wire.Hello) { h.Volume = format.UUID{} }), all, wire.ErrInvalid, ""},
		{"hello: no container", h(func(h *wire.Hello) { h.Container = format.UUID{} }), all, wire.ErrInvalid, ""},
		{"hello: no lineage", h(func(h *wire.Hello) { h.Lineage = nil }), all, wire.ErrInvalid, ""},
		{"hello: lineage backwards", h(func(h *wire.Hello) {
			h.Lineage = []format.Lineage{{ID: uuid(1), Start: 5}, {ID: uuid(2), Start: 4}}
		}), all, wire.ErrInvalid, "link 1"},
		{"hello: no keep-alive", h(func(h *wire.Hello) { h.KeepAlive = 0 }), all, wire.ErrInvalid, ""},
		{"hello: long keep-alive", h(func(h *wire.Hello) { h.KeepAlive = time.Hour }), all, wire.ErrInvalid, ""},
		{"records: empty range", change(func(r *wire.Records) { r.End = r.First }), all, wire.ErrInvalid, ""},
		{"records: birth before", change(func(r *wire.Records) { r.Entries[0].Birth = 99 }), all, wire.ErrInvalid, "birth"},
		{"records: birth beyond", change(func(r *wire.Records) { r.Entries[2].Birth = 104 }), all, wire.ErrInvalid, "birth"},
		{"records: birth twice", change(func(r *wire.Records) { r.Entries[1].Birth = 100 }), all, wire.ErrInvalid, "birth"},
		{"records: data of two chunks", change(func(r *wire.Records) { r.Entries[0].Count = 2 }), all, wire.ErrInvalid, "count"},
		{"records: discard of none", change(func(r *wire.Records) { r.Entries[1].Count = 0 }), all, wire.ErrInvalid, "count"},
		{"records: unknown kind", change(func(r *wire.Records) { r.Entries[2].Kind = 9 }), all, wire.ErrInvalid, "kind"},
		{"records: map page", change(func(r *wire.Records) { r.Entries[2].Kind = format.KindPage }), all, wire.ErrInvalid, "kind"},
		{"records: beyond 16 TiB", change(func(r *wire.Records) { r.Entries[2].LBA = 1<<32 - 1 }), all, wire.ErrInvalid, "place"},
		{"records: data too many", change(func(r *wire.Records) { r.Entries[2] = format.Entry{Birth: 103, Kind: format.KindData, Count: 1} }), all, wire.ErrInvalid, "its 2 data entries have 8192 bytes, the data 4096"},
	}
	for _, tt := range tests {
		r := wire.NewReader(bytes.NewReader(tt.bytes))
		_, err := decode(r, tt.allow)
		if err == nil {
			_, err = decode(r, tt.allow)
		}
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
	}
}

// TestRecordsDoNotAddUp: the numbers in a RECORDS must make up its length before anything is allocated by them.
func TestRecordsDoNotAddUp(t *testing.T) {
	const c = format.ChunkSize
	for _, n := range [][2]uint32{{4, c}, {3, 2 * c}, {3, 1}, {3, c + 1}, {1 << 31, c}, {3, 1 << 31}, {1<<32 - 1, 1<<32 - 1}, {wire.MaxEntries + 1, 0}} {
		b := recordsFrame(&records)
		for i := range 4 {
			b[40+i], b[44+i] = byte(n[0]>>(8*i)), byte(n[1]>>(8*i))
		}
		allocated := testing.AllocsPerRun(1, func() {
			if _, err := decode(wire.NewReader(bytes.NewReader(b)), all); !errors.Is(err, wire.ErrInvalid) {
				t.Errorf("%d entries, %d bytes: %v", n[0], n[1], err)
			}
		})
		if allocated > 40 {
			t.Errorf("%d entries, %d bytes: %v allocations", n[0], n[1], allocated)
		}
	}
}

func TestEncodersRefuse(t *testing.T) {
	h := hello
	h.Name = strings.Repeat("x", wire.MaxName+1)
	if _, err := wire.AppendHello(nil, &h); err == nil || !strings.Contains(err.Error(), "1025 bytes is too long") {
		t.Errorf("long name: %v", err)
	}
	w := welcome
	w.Lineage = make([]format.Lineage, wire.MaxLinks+1)
	if _, err := wire.AppendWelcome(nil, &w); err == nil || !strings.Contains(err.Error(), "2049 links") {
		t.Errorf("long lineage: %v", err)
	}
	var r wire.Records
	r.End = 600
	for i := range 600 {
		r.Entries = append(r.Entries, format.Entry{Birth: format.Position(i), Kind: format.KindData, Count: 1})
	}
	r.Data = make([]byte, 600*format.ChunkSize)
	if _, err := wire.AppendRecords(nil, &r); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("frame of 2.4 MB: %v", err)
	}
	longest := wire.Hello{KeepAlive: time.Second, Volume: uuid(1), Container: uuid(2), Size: 4096, Name: strings.Repeat("x", wire.MaxName)}
	for range wire.MaxLinks {
		longest.Lineage = append(longest.Lineage, format.Lineage{ID: uuid(3)})
	}
	if _, err := decode(wire.NewReader(bytes.NewReader(must(wire.AppendHello(nil, &longest)))), all); err != nil {
		t.Errorf("the longest HELLO: %v", err)
	}
}

// TestRefuseText: what a stranger says goes to terminals, so it must not steer them.
func TestRefuseText(t *testing.T) {
	got, err := decode(wire.NewReader(bytes.NewReader(wire.AppendRefuse(nil, 99, "a\x1b[2Jb\n"+strings.Repeat("é", 600)))), all)
	if err != nil || !strings.HasPrefix(got.(string), "code 99: a?[2Jb?é") || len(got.(string)) > wire.MaxText+20 {
		t.Errorf("got %q, %v", got, err)
	}
}

func fuzz(f *testing.F, allow wire.Set) {
	for _, fr := range frames() {
		f.Add(fr.bytes)
	}
	f.Add(packedFrames(wire.LevelFast))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 16 { // let the fuzzer past the checksum
			control := len(b) - 16
			if b[4] == byte(wire.TypeRecords) && control >= 32 { // the data is no control
				control = min(control, 32+24*int(uint32(b[40])|uint32(b[41])<<8))
			}
			b = reseal(bytes.Clone(b), control)
		}
		squeezed := len(b) > 16 && b[4] == byte(wire.TypeRecords) // told in other words than AppendRecords would
		r := wire.NewReader(bytes.NewReader(b))
		for first := true; ; first = false {
			got, err := decode(r, allow)
			if err != nil {
				return
			}
			var again []byte
			switch x := got.(type) {
			case wire.Hello:
				again, err = wire.AppendHello(nil, &x)
			case wire.Welcome:
				again, err = wire.AppendWelcome(nil, &x)
			case wire.Snapshot:
				again, err = wire.AppendSnapshot(nil, &x)
			case []wire.Range:
				again, err = wire.AppendRanges(nil, x, b[5]&1 != 0)
				if err == nil && !first {
					continue // the flag is of another frame
				}
			case wire.Records:
				again, err = wire.AppendRecords(nil, &x)
				again = append(again, x.Data...)
			default:
				continue
			}
			if err != nil {
				t.Fatalf("decoded but not encodable: %v", err)
			}
			if first && !squeezed && !bytes.HasPrefix(b, again) {
				t.Fatalf("decoded from other bytes than it encodes to:\n%x\n%x", b[:min(len(b), len(again))], again)
			}
			if got2, err := decode(wire.NewReader(bytes.NewReader(again)), all); err != nil || !cmp.Equal(got, got2) {
				t.Fatalf("not the same again: %v\n%s", err, cmp.Diff(got, got2))
			}
		}
	})
}

func FuzzHello(f *testing.F)   { fuzz(f, wire.Of(wire.TypeHello)) }
func FuzzWelcome(f *testing.F) { fuzz(f, wire.Of(wire.TypeWelcome, wire.TypeRefuse)) }
func FuzzRecords(f *testing.F) { fuzz(f, wire.Of(wire.TypeRecords, wire.TypeBeat, wire.TypeRefuse)) }
func FuzzRoles(f *testing.F) {
	fuzz(f, wire.Of(wire.TypeRanges, wire.TypeFollow, wire.TypeHandover, wire.TypeTaken, wire.TypeRefuse, wire.TypeBeat))
}
func FuzzAck(f *testing.F)      { fuzz(f, wire.Of(wire.TypeAck, wire.TypeBeat, wire.TypeRefuse)) }
func FuzzSnapshot(f *testing.F) { fuzz(f, wire.Of(wire.TypeSnapshot, wire.TypeKept)) }

package delta_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cawrm/aodi/format"
	"cawrm/cawrm/delta"
)

var head = delta.Head{Volume: format.UUID{1, 2}, Size: 1 << 20, From: 10, To: 100, Time: 1_700_000_000_000_000_000, ToName: "tue",
	FromName: "mon", Lineage: []format.Lineage{{ID: format.UUID{3}, Start: 0}, {ID: format.UUID{4}, Start: 50}}}

func chunk(b byte) []byte {
	return bytes.Repeat([]byte{b, b ^ 0x55, 7}, format.ChunkSize)[:format.ChunkSize]
}

func data(birth, lba uint64, c []byte) format.Entry {
	return format.Entry{Birth: format.Position(birth), LBA: lba, Kind: format.KindData, Count: 1, CRC: format.Sum(c)}
}

// bodies are what the file of these tests holds.
var bodies = []struct {
	entries []format.Entry
	data    []byte
}{
	{[]format.Entry{data(12, 3, chunk(1)), data(11, 9, chunk(2))}, append(chunk(1), chunk(2)...)},
	{[]format.Entry{data(99, 200, chunk(3))}, chunk(3)},
	{[]format.Entry{{Birth: 99, LBA: 4, Kind: format.KindDiscard, Count: 5}, {Birth: 99, LBA: 100, Kind: format.KindZero, Count: 1}}, nil},
}

func file(t testing.TB) []byte {
	var b bytes.Buffer
	w, err := delta.NewWriter(&b, &head)
	for _, x := range bodies {
		if err == nil {
			err = w.Write(x.entries, x.data)
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip ensures that what is written is read, and then io.EOF.
func TestRoundTrip(t *testing.T) {
	r, err := delta.NewReader(bytes.NewReader(file(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(head, r.Head()); diff != "" {
		t.Fatal(diff)
	}
	for i, x := range bodies {
		entries, data, err := r.Next()
		if err != nil || !cmp.Equal(x.entries, entries) || !bytes.Equal(x.data, data) {
			t.Fatalf("body %d: %v %s", i, err, cmp.Diff(x.entries, entries))
		}
	}
	for range 2 {
		if _, _, err := r.Next(); err != io.EOF {
			t.Fatal(err)
		}
	}
}

// TestGolden ensures that the frames of the first version are read for ever. (What is compressed may come out otherwise.)
// UPDATE=1 writes the file anew.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "v1.hex")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(file(t))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := readAll(file(t))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if !bytes.Equal(b[:24+100], file(t)[:24+100]) {
		t.Fatal("HEAD has other bytes than it had")
	}
}

// whole is a file as it was read.
type whole struct {
	Head    delta.Head
	Entries []format.Entry
	Data    []byte
}

func readAll(b []byte) (x whole, err error) {
	r, err := delta.NewReader(bytes.NewReader(b))
	if err != nil {
		return x, err
	}
	x.Head = r.Head()
	for {
		e, d, err := r.Next()
		if err == io.EOF {
			return x, nil
		}
		if err != nil {
			return x, err
		}
		x.Entries, x.Data = append(x.Entries, e...), append(x.Data, d...)
	}
}

// TestEveryByte ensures that a file with any one byte changed, or cut off anywhere, is not taken as whole.
func TestEveryByte(t *testing.T) {
	f := file(t)
	for i := range f {
		bad := bytes.Clone(f)
		bad[i] ^= 0x10
		if _, err := readAll(bad); err == nil {
			t.Fatalf("byte %d was changed, and nobody has seen it", i)
		}
		if _, err := readAll(f[:i]); err == nil {
			t.Fatalf("cut off at byte %d, and nobody has seen it", i)
		}
	}
}

// TestWrongFiles ensures that the three kinds of wrong files are told apart.
func TestWrongFiles(t *testing.T) {
	f := file(t)
	with := func(i int, b byte) []byte { c := bytes.Clone(f); c[i] = b; return c }
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"something else", []byte("GIF89a, and so on and so forth"), delta.ErrMagic},
		{"short and something else", []byte("GIF"), delta.ErrMagic},
		{"a later version", with(5, 2), delta.ErrVersion},
		{"a flipped byte", with(40, 0xff), delta.ErrChecksum},
		{"a length beyond the bound", with(11, 0xff), delta.ErrInvalid},
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"the half", f[:len(f)/2], io.ErrUnexpectedEOF},
		{"two of them", append(bytes.Clone(f), f...), delta.ErrInvalid},
	} {
		if _, err := readAll(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
	w, err := delta.NewWriter(io.Discard, &head)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []format.Entry{{Birth: 9, Kind: format.KindZero, Count: 1}, {Birth: 100, Kind: format.KindZero, Count: 1},
		{Birth: 50, LBA: 256, Kind: format.KindZero, Count: 1}, {Birth: 50, LBA: 255, Kind: format.KindZero, Count: 2}, {Birth: 50, Kind: 9, Count: 1}} {
		if err := w.Write([]format.Entry{e}, nil); !errors.Is(err, delta.ErrInvalid) {
			t.Errorf("%+v was written: %v", e, err)
		}
	}
}

// reseal makes the checksums of the frames in b right, so that the fuzzer comes past them.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	sum, table := sha256.New(), crc32.MakeTable(crc32.Castagnoli)
	for at, number := 0, uint32(0); len(b)-at >= 24; number++ {
		n := int(binary.LittleEndian.Uint32(b[at+8:]))
		if n < 0 || n > len(b)-at-24 {
			return b
		}
		if b[at+4] == 3 && n == 48 {
			copy(b[at+24+16:], sum.Sum(nil))
		}
		binary.LittleEndian.PutUint32(b[at+16:], number)
		crc := crc32.Update(0, table, b[at:at+20])
		binary.LittleEndian.PutUint32(b[at+20:], crc32.Update(crc, table, b[at+24:at+24+n]))
		sum.Write(b[at : at+24+n])
		at += 24 + n
	}
	return b
}

// FuzzReader ensures that no bytes make a reader fail otherwise than by an error, or take what a writer would not write.
func FuzzReader(f *testing.F) {
	f.Add(file(f))
	f.Add(file(f)[:300])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readAll(reseal(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := delta.NewWriter(&out, &x.Head)
		if err != nil {
			t.Fatalf("read, and cannot be written: %v", err)
		}
		at := 0
		for i := range x.Entries {
			n := 0
			if x.Entries[i].Kind == format.KindData {
				n = format.ChunkSize
			}
			if err := w.Write(x.Entries[i:i+1], x.Data[at:at+n]); err != nil {
				t.Fatalf("entry %d was read, and cannot be written: %v", i, err)
			}
			at += n
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if y, err := readAll(out.Bytes()); err != nil || !cmp.Equal(x, y) {
			t.Fatalf("not the same again: %v %s", err, cmp.Diff(x, y))
		}
	})
}

package format_test

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"cawrm/aodi/format"
)

// Each target takes any bytes, and in a second try the same bytes with the right magic, version and checksum, since
// no fuzzer finds a checksum. What is accepted is encoded again and must be accepted with the same result. What is
// allocated is bounded by the structure's size, whatever its counts say.

// allocBound fails when a decoder allocates more than so many bytes for one input.
func allocBound(t *testing.T, bound uint64, decode func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decode()
	runtime.ReadMemStats(&after)
	// Other goroutines of the test allocate too, a little: only what is far beyond is a decoder's fault.
	if n := after.TotalAlloc - before.TotalAlloc; n > bound+1<<20 {
		t.Fatalf("decoding allocated %d bytes, at most %d are needed", n, bound)
	}
}

// sealed puts magic, version and checksum into a copy of b that is n bytes long.
func sealed(b []byte, n int, magic string, version int) []byte {
	s := make([]byte, n)
	copy(s, b)
	copy(s, magic)
	if len(magic) == 8 {
		binary.LittleEndian.PutUint32(s[8:], uint32(version))
	} else {
		binary.LittleEndian.PutUint16(s[4:], uint16(version))
	}
	binary.LittleEndian.PutUint32(s[n-4:], format.Sum(s[:n-4]))
	return s
}

func addSeeds(f *testing.F, prefix string) {
	for _, s := range structures() {
		if strings.HasPrefix(s.name, prefix) {
			f.Add(s.encode())
		}
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, format.ChunkSize))
}

func FuzzSuper(f *testing.F) {
	addSeeds(f, "super")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed(b, format.ChunkSize, "CAWRMVOL", format.Version)} {
			s, err := format.DecodeSuper(b)
			if err != nil {
				continue
			}
			if s.SegmentChunks < 32 || s.SegmentChunks > 65536 || s.SegmentChunks&(s.SegmentChunks-1) != 0 {
				t.Fatalf("segments of %d chunks", s.SegmentChunks)
			}
			again := make([]byte, format.ChunkSize)
			s.Encode(again)
			if got, err := format.DecodeSuper(again); err != nil || got != s {
				t.Fatalf("%+v, %v; want %+v", got, err, s)
			}
		}
	})
}

func FuzzMeta(f *testing.F) {
	addSeeds(f, "meta")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed(b, format.ChunkSize, "CAWRMMET", format.Version)} {
			m, err := format.DecodeMeta(b)
			if err != nil {
				continue
			}
			if m.Size < 0 || m.Size > format.MaxLogicalSize || m.MapHeight < 1 || m.MapHeight > 4 || m.CatalogLen > format.MaxCatalog {
				t.Fatalf("%+v", m)
			}
			again := make([]byte, format.ChunkSize)
			m.Encode(again)
			if got, err := format.DecodeMeta(again); err != nil || m.Jump.Got.Valid() && !reflect.DeepEqual(got, m) {
				t.Fatalf("%+v, %v; want %+v", got, err, m)
			}
		}
	})
}

func FuzzCatalog(f *testing.F) {
	addSeeds(f, "catalog")
	f.Fuzz(func(t *testing.T, b []byte) {
		var c format.Catalog
		var err error
		// An item takes at least 4 bytes here and at most 96 in memory, and a slice that grows is copied.
		allocBound(t, 1<<16+uint64(len(b))*100, func() { c, err = format.DecodeCatalog(b) })
		if err != nil || len(b) > format.MaxCatalog {
			return
		}
		again, err := c.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := format.DecodeCatalog(again); err != nil || !same(got, c) {
			t.Fatalf("%+v, %v; want %+v", got, err, c)
		}
	})
}

func FuzzBatch(f *testing.F) {
	addSeeds(f, "batch")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed(b, format.ChunkSize, "CBAT", format.Version)} {
			var h format.BatchHeader
			var err error
			allocBound(t, 1<<16, func() { err = h.Decode(b) })
			if err != nil {
				continue
			}
			if len(h.Entries) > format.MaxEntries || h.Chunks() > 1+format.MaxEntries || h.End < h.First {
				t.Fatalf("%+v", h)
			}
			again := make([]byte, format.ChunkSize)
			h.Encode(again)
			var got format.BatchHeader
			if err := got.Decode(again); err != nil || !same(got, h) {
				t.Fatalf("%+v, %v; want %+v", got, err, h)
			}
		}
	})
}

func FuzzSummary(f *testing.F) {
	addSeeds(f, "summary")
	big := format.NewGeometry(256)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range []format.Geometry{geo, big} {
			for _, b := range [][]byte{b, sealed(b, int(g.SummaryChunks)*format.ChunkSize, "CSUM", format.Version)} {
				var s format.Summary
				var err error
				allocBound(t, 1<<16, func() { s, err = format.DecodeSummary(g, b) })
				if err != nil {
					continue
				}
				if len(s.Slots) > int(g.Slots()) {
					t.Fatalf("%d slots of %d", len(s.Slots), g.Slots())
				}
				again := make([]byte, g.SummaryChunks*format.ChunkSize)
				s.Encode(g, again)
				if got, err := format.DecodeSummary(g, again); err != nil || !same(got, s) {
					t.Fatalf("%+v, %v; want %+v", got, err, s)
				}
			}
		}
	})
}

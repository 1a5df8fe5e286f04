package format_test

import (
	"reflect"
	"testing"

	"cawrm/aodi/format"

	"pgregory.net/rapid"
)

func drawUUID(t *rapid.T, label string) format.UUID {
	return format.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
}

func draw64(t *rapid.T, label string) uint64 { return rapid.Uint64().Draw(t, label) }
func draw32(t *rapid.T, label string) uint32 { return rapid.Uint32().Draw(t, label) }

func TestSuperRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := format.Super{Container: drawUUID(t, "container"), SegmentChunks: 1 << rapid.IntRange(5, 16).Draw(t, "log2"),
			Created: rapid.Int64().Draw(t, "created")}
		b := make([]byte, format.ChunkSize)
		want.Encode(b)
		if got, err := format.DecodeSuper(b); err != nil || got != want {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

func TestMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := format.Meta{Flags: draw32(t, "flags"), Seq: draw64(t, "seq"), Container: drawUUID(t, "container"), Volume: drawUUID(t, "volume"),
			Size:     rapid.Int64Range(0, format.MaxLogicalSize/format.ChunkSize).Draw(t, "chunks") * format.ChunkSize,
			Position: format.Position(draw64(t, "position")), Time: rapid.Int64().Draw(t, "time"),
			MapRoot: format.Ref(draw64(t, "map root")), MapHeight: rapid.Uint32Range(1, 4).Draw(t, "map height"),
			SegHeight: rapid.Uint32Range(1, 4).Draw(t, "seg height"), SegRoot: format.Ref(draw64(t, "seg root")),
			Segments: rapid.Uint64Range(0, format.PhysLimit).Draw(t, "segments"),
			Log: format.LogPlace{Segment: draw32(t, "log segment"), Chunk: draw32(t, "log chunk"), Next: draw32(t, "log next"),
				PrevCRC: draw32(t, "prev"), Seq: draw64(t, "log seq")},
			Incarnation: draw32(t, "incarnation"), MetaSegment: draw32(t, "meta"), MetaChunk: draw32(t, "meta chunk"), MetaNext: draw32(t, "meta next"),
			Logged: draw64(t, "logged"), Mapped: draw64(t, "mapped"), HistoryFl: format.Position(draw64(t, "history")),
			TrimFloor: format.Position(draw64(t, "trim")), Catalog: format.Ref(draw64(t, "catalog")),
			CatalogLen: rapid.Uint32Range(0, format.MaxCatalog).Draw(t, "catalog len"),
			Capacity:   rapid.Int64Min(0).Draw(t, "capacity"), Free: draw64(t, "free"),
			Jump: format.Jump{Root: format.Ref(draw64(t, "jump root")), Mapped: draw64(t, "jump mapped"), End: format.Position(draw64(t, "jump end")), Got: drawReached(t)}}
		b := make([]byte, format.ChunkSize)
		want.Encode(b)
		if got, err := format.DecodeMeta(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

func drawReached(t *rapid.T) format.Reached {
	var r format.Reached
	base, cursor := uint64(1<<60), uint64(0)
	for range rapid.IntRange(0, format.MaxReach).Draw(t, "parts") {
		base -= rapid.Uint64Range(1, 1<<50).Draw(t, "base")
		r = append(r, format.Reach{Base: format.Position(base), Cursor: cursor})
		cursor += rapid.Uint64Range(1, 1<<30).Draw(t, "cursor")
	}
	return r
}

func TestCatalogRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want format.Catalog
		for range rapid.IntRange(0, 5).Draw(t, "lineages") {
			want.Lineage = append(want.Lineage, format.Lineage{ID: drawUUID(t, "lineage"), Start: format.Position(draw64(t, "start"))})
		}
		for range rapid.IntRange(0, 5).Draw(t, "mirrors") {
			want.Mirrors = append(want.Mirrors, format.Mirror{ID: rapid.String().Draw(t, "id"), URL: rapid.String().Draw(t, "url"),
				SyncPtr: format.Position(draw64(t, "sync_ptr"))})
		}
		for range rapid.IntRange(0, 5).Draw(t, "snapshots") {
			want.Snapshots = append(want.Snapshots, format.Snapshot{Name: rapid.String().Draw(t, "name"), Position: format.Position(draw64(t, "position")),
				Root: format.Ref(draw64(t, "root")), Height: draw32(t, "height"), Size: rapid.Int64().Draw(t, "size"), Time: rapid.Int64().Draw(t, "time"),
				Flags: draw32(t, "flags"), Mapped: draw64(t, "mapped"), Gone: draw64(t, "gone"), Logged: draw64(t, "logged"),
				Log: format.LogPlace{Segment: draw32(t, "segment"), Chunk: draw32(t, "chunk"), Next: draw32(t, "next"), PrevCRC: draw32(t, "crc"), Seq: draw64(t, "seq")}})
		}
		for range rapid.IntRange(0, 3).Draw(t, "clones") {
			want.Clones = append(want.Clones, format.Clone{Snapshot: rapid.String().Draw(t, "of"), Name: rapid.String().Draw(t, "clone"), Path: rapid.String().Draw(t, "path")})
		}
		if rapid.Bool().Draw(t, "is a clone") {
			want.Base = &format.Base{Container: drawUUID(t, "container"), Position: format.Position(draw64(t, "base")),
				Snapshot: rapid.String().Draw(t, "snapshot"), Path: rapid.String().Draw(t, "path")}
		}
		b, err := want.Encode([]byte("before"))
		if err != nil || string(b[:6]) != "before" {
			t.Fatalf("%q, %v", b, err)
		}
		if got, err := format.DecodeCatalog(b[6:]); err != nil || !same(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

// drawEntry draws an entry that a batch of that kind can hold.
func drawEntry(t *rapid.T, kind format.BatchKind) format.Entry {
	e := format.Entry{Birth: format.Position(draw64(t, "birth")), LBA: rapid.Uint64Range(0, 1<<48-2).Draw(t, "lba"),
		CRC: draw32(t, "crc"), Level: rapid.Byte().Draw(t, "level"), Kind: format.KindData, Count: 1}
	kinds := []format.Kind{format.KindData, format.KindDiscard, format.KindZero}
	if kind == format.BatchMeta {
		kinds = append(kinds, format.KindPage)
	}
	switch e.Kind = rapid.SampledFrom(kinds).Draw(t, "kind"); e.Kind {
	case format.KindPage:
		e.Count = draw32(t, "tree")
	case format.KindDiscard, format.KindZero:
		e.Count = uint32(min(rapid.Uint64Range(1, 1<<32-1).Draw(t, "count"), 1<<48-1-e.LBA))
	}
	return e
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := format.BatchHeader{Kind: rapid.SampledFrom([]format.BatchKind{format.BatchLog, format.BatchCold, format.BatchMeta}).Draw(t, "kind"),
			Flags: rapid.Byte().Draw(t, "flags"), Tag: draw64(t, "tag"), Seq: draw64(t, "seq"), First: format.Position(draw64(t, "first")),
			Time: rapid.Int64().Draw(t, "time"), Logged: draw64(t, "logged"), Incarnation: draw32(t, "incarnation"),
			PrevCRC: draw32(t, "prev"), Next: draw32(t, "next")}
		want.End = format.Position(rapid.Uint64Min(uint64(want.First)).Draw(t, "end"))
		for range rapid.IntRange(0, format.MaxEntries).Draw(t, "entries") {
			e := drawEntry(t, want.Kind)
			if e.Kind == format.KindData || e.Kind == format.KindPage {
				want.Data++
			}
			want.Entries = append(want.Entries, e)
		}
		b := make([]byte, format.ChunkSize)
		crc := want.Encode(b)
		got := format.BatchHeader{Entries: make([]format.Entry, 3, 500)} // a header that was used before
		if err := got.Decode(b); err != nil || !same(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		if crc != format.HeaderCRC(b) || crc != format.Sum(b[:format.ChunkSize-4]) {
			t.Fatalf("checksum %08x, stored %08x", crc, format.HeaderCRC(b))
		}
		if got.Chunks() != 1+uint32(want.Data) || got.Commits() != (want.Flags&format.FlagCommit != 0) {
			t.Fatalf("chunks %d, commits %v", got.Chunks(), got.Commits())
		}
	})
}

func TestSummaryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := format.NewGeometry(1 << rapid.IntRange(5, 9).Draw(t, "log2"))
		want := format.Summary{Kind: format.BatchCold, Tag: draw64(t, "tag"), Segment: draw32(t, "segment"), Incarnation: draw32(t, "incarnation"),
			MaxPosition: format.Position(draw64(t, "max")), Slots: make([]format.Entry, rapid.Uint32Range(0, g.Slots()).Draw(t, "slots"))}
		for i := range want.Slots {
			if i%7 > 0 {
				want.Slots[i] = drawEntry(t, format.BatchMeta)
			}
		}
		b := make([]byte, g.SummaryChunks*format.ChunkSize+5) // more room than it takes
		want.Encode(g, b)
		if got, err := format.DecodeSummary(g, b); err != nil || !same(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

func TestRowRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := format.SegmentRow{Live: draw32(t, "live"), State: format.SegmentState(rapid.Byte().Draw(t, "state")),
			Kind: format.BatchKind(rapid.Byte().Draw(t, "kind")), MaxPosition: format.Position(draw64(t, "max"))}
		b := make([]byte, format.SegmentRowSize)
		want.Put(b)
		if got := format.GetSegmentRow(b); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

// TestRef ensures that a reference keeps its place and 24 bits of its checksum, and tells data from marks.
func TestRef(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := format.Phys(rapid.Uint64Range(0, 1<<40-1).Draw(t, "phys"))
		sum, other := draw32(t, "sum"), draw32(t, "other")
		r := format.MakeRef(p, sum)
		if r.Phys() != p || !r.Matches(sum) || r.Matches(other) != (sum&0xffffff == other&0xffffff) {
			t.Fatalf("%#x: place %d of %d", uint64(r), r.Phys(), p)
		}
		if r.HasData() != (p >= format.DataStart) {
			t.Fatalf("%#x: HasData is %v", uint64(r), r.HasData())
		}
	})
	if format.Unmapped.HasData() || format.ZeroRef.HasData() || format.ZeroRef.Phys() != 1 {
		t.Error("a mark is taken for data")
	}
}

// TestGeometry ensures that chunks and segments are each other's inverse, that what a segment holds fits it, and
// that no more room than needed is set apart for its summary.
func TestGeometry(t *testing.T) {
	for log2 := 5; log2 <= 16; log2++ {
		g := format.NewGeometry(1 << log2)
		if need := 64 + 24*int64(g.Slots()) + 4; need > int64(g.SummaryChunks)*format.ChunkSize {
			t.Errorf("%d chunks: a summary of %d slots takes %d bytes, %d chunks are set apart", g.SegmentChunks, g.Slots(), need, g.SummaryChunks)
		} else if less := 64 + 24*int64(g.Slots()+1) + 4; less <= int64(g.SummaryChunks-1)*format.ChunkSize {
			t.Errorf("%d chunks: %d summary chunks are more than needed", g.SegmentChunks, g.SummaryChunks)
		}
		s := format.Summary{Slots: make([]format.Entry, g.Slots())}
		s.Encode(g, make([]byte, g.SummaryChunks*format.ChunkSize)) // a full one does not panic
	}
	rapid.Check(t, func(t *rapid.T) {
		g := format.NewGeometry(1 << rapid.IntRange(5, 16).Draw(t, "log2"))
		seg, i := draw32(t, "segment"), rapid.Uint32Range(0, g.SegmentChunks-1).Draw(t, "chunk")
		p := g.Phys(seg, i)
		if s, c := g.Locate(p); s != seg || c != i {
			t.Fatalf("segment %d chunk %d is at %d, which is segment %d chunk %d", seg, i, p, s, c)
		}
		if int64(p+1)*format.ChunkSize > g.Bytes(uint64(seg)+1) || int64(p)*format.ChunkSize < g.Bytes(uint64(seg)) {
			t.Fatalf("segment %d chunk %d lies outside the bytes of its segment", seg, i)
		}
	})
}

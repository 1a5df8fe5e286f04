package format_test

import (
	"bytes"
	"fmt"
	"reflect"

	"cawrm/aodi/format"
)

// geo is that of the smallest segments: 31 slots and one summary chunk.
var geo = format.NewGeometry(32)

func uuid(n byte) (u format.UUID) {
	for i := range u {
		u[i] = n + byte(i)
	}
	return u
}

// structure is one of the format's structures, for tests that all of them must pass.
type structure struct {
	name   string
	sealed bool // it holds its own checksum, and a magic and a version
	encode func() []byte
	decode func(b []byte) (any, error)
	want   any // what decoding the encoded gives
}

// structures are one of each, with every field set to something that no other field holds.
func structures() []structure {
	chunk := func(encode func([]byte)) []byte {
		b := bytes.Repeat([]byte{0xee}, format.ChunkSize) // what encoders must overwrite
		encode(b)
		return b
	}
	super := format.Super{Container: uuid(0x10), SegmentChunks: 2048, Created: 1700000000000000001}
	meta := format.Meta{Flags: format.FlagMirror | format.FlagClean, Seq: 0x0102030405060708, Container: uuid(0x10), Volume: uuid(0x30),
		Size: 1 << 40, Position: 0x1112131415161718, Time: 1700000000000000002, MapRoot: 0xa1a2a30000001234, MapHeight: 3,
		SegHeight: 2, SegRoot: 0xb1b2b30000005678, Segments: 131072, Log: format.LogPlace{Segment: 0x21, Chunk: 0x22, Next: 0x23,
			PrevCRC: 0x24252627, Seq: 0x28292a2b2c2d2e2f}, Incarnation: 0x31, MetaSegment: 0x32, MetaChunk: 0x33, MetaNext: 0x34,
		Logged: 0x41424344, Mapped: 0x51525354, HistoryFl: 0x61626364, TrimFloor: 0x71727374, Catalog: 0xc1c2c3000000789a,
		CatalogLen: 0x2345, Capacity: 2 << 40, Free: 0x81828384, ColdSegment: 0x91929394, ColdChunk: 0x95, Live: 0x96979899}
	catalog := format.Catalog{
		Lineage: []format.Lineage{{ID: uuid(0x30), Start: 0}, {ID: uuid(0x50), Start: 1 << 48}},
		Mirrors: []format.Mirror{{ID: "b", URL: "cawrm://b:7788/vol", SyncPtr: 4711}, {ID: "", URL: "", SyncPtr: 1}},
		Snapshots: []format.Snapshot{{Name: "monday", Position: 99, Root: 0xd1d2d30000009abc, Height: 2, Flags: format.FlagDeleting,
			Size: 1 << 30, Time: 1700000000000000003, Mapped: 0x91, Gone: 0x92, Logged: 0x93, Log: format.LogPlace{Segment: 0x94, Chunk: 0x95, Next: 0x96, PrevCRC: 0x97, Seq: 0x98}}},
		Clones: []format.Clone{{Snapshot: "monday", Name: "test", Path: "/srv/test.img"}},
		Base:   &format.Base{Container: uuid(0x70), Position: 98, Snapshot: "sunday", Path: "/srv/disk.img"},
	}
	batch := format.BatchHeader{Kind: format.BatchLog, Flags: format.FlagCommit | format.FlagRestart, Tag: 0x0102030405060708, Seq: 77,
		First: 1000, End: 1005, Time: 1700000000000000004, Logged: 12345, Incarnation: 9, PrevCRC: 0xdeadbeef, Next: 17, Data: 2,
		Entries: []format.Entry{
			{Birth: 1000, LBA: 0xa0a1a2a3a4a5, Kind: format.KindData, Count: 1, CRC: 0x11121314},
			{Birth: 1001, LBA: 8, Kind: format.KindDiscard, Count: 100},
			{Birth: 1003, LBA: 9, Kind: format.KindZero, Count: 0xffffffff},
			{Birth: 1004, LBA: 10, Kind: format.KindData, Count: 1, CRC: 0x21222324},
		}}
	grown := format.BatchHeader{Kind: format.BatchLog, Flags: format.FlagCommit, Tag: 6, Seq: 78, First: 1005, End: 1007, Time: 1700000000000000005,
		Logged: 12347, Incarnation: 9, PrevCRC: 0xfeedface, Next: 18, Data: 1, Entries: []format.Entry{
			{Birth: 1005, LBA: 0x10203040, Kind: format.KindSize, Count: 0x51525354},
			{Birth: 1006, LBA: 0x61626364, Kind: format.KindData, Count: 1, CRC: 0x31323334},
		}}
	page := format.BatchHeader{Kind: format.BatchMeta, Flags: format.FlagCommit, Tag: 5, Seq: 3, Incarnation: 2, Data: 1,
		Entries: []format.Entry{{Birth: 3, LBA: 7, Kind: format.KindPage, Level: 2, Count: 1, CRC: 0x31323334}}}
	summary := format.Summary{Kind: format.BatchLog, Tag: 0x0102030405060708, Segment: 6, Incarnation: 9, MaxPosition: 1005,
		Slots: make([]format.Entry, geo.Slots())}
	summary.Slots[0] = format.Entry{Kind: format.KindHeader}
	summary.Slots[1], summary.Slots[2] = batch.Entries[0], batch.Entries[3]
	row := format.SegmentRow{Live: 0x01020304, State: format.SegmentSealed, Kind: format.BatchCold, MaxPosition: 0x1112131415161718}

	header := func(name string, h *format.BatchHeader) structure {
		return structure{"batch-" + name, true,
			func() []byte { return chunk(func(b []byte) { h.Encode(b) }) }, decodeBatch, *h}
	}
	return []structure{
		{"super", true, func() []byte { return chunk(super.Encode) }, func(b []byte) (any, error) { return format.DecodeSuper(b) }, super},
		{"meta", true, func() []byte { return chunk(meta.Encode) }, func(b []byte) (any, error) { return format.DecodeMeta(b) }, meta},
		{"catalog", false, func() []byte { return mustEncode(&catalog) }, func(b []byte) (any, error) { return format.DecodeCatalog(b) }, catalog},
		header("log", &batch),
		header("size", &grown),
		header("meta", &page),
		{"summary", true, func() []byte { return chunk(func(b []byte) { summary.Encode(geo, b) }) },
			func(b []byte) (any, error) { return format.DecodeSummary(geo, b) }, summary},
		{"row", false, func() []byte { b := make([]byte, format.SegmentRowSize); row.Put(b); return b },
			func(b []byte) (any, error) { return format.GetSegmentRow(b), nil }, row},
	}
}

func decodeBatch(b []byte) (any, error) {
	var h format.BatchHeader
	err := h.Decode(b)
	return h, err
}

func mustEncode(c *format.Catalog) []byte {
	b, err := c.Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// same is equality in which an empty slice is as good as none.
func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

package format

import "fmt"

// Flags of a meta chunk.
const (
	FlagMirror     = 1 << 0 // role mirror: only a source writes to it
	FlagNoIdentity = 1 << 1 // an empty mirror that takes size and identity from its first source
	FlagClean      = 1 << 2 // closed in order: nothing to replay
	FlagYields     = 1 << 3 // a mirror that leaves its own branch for any other
)

// LogPlace is a place in the log and what a batch there must look like to follow.
type LogPlace struct {
	Segment uint32 // segment of the next batch
	Chunk   uint32 // chunk in it
	Next    uint32 // segment after that one
	PrevCRC uint32 // crc of the header before
	Seq     uint64 // sequence of the next batch
}

// Meta is a checkpoint: all that recovery starts from.
type Meta struct {
	Flags       uint32
	Seq         uint64
	Container   UUID
	Volume      UUID
	Size        int64 // logical size, bytes
	Position    Position
	Time        int64 // unix nanoseconds
	MapRoot     Ref
	MapHeight   uint32 // levels of pages, 1 to 4
	SegHeight   uint32
	SegRoot     Ref
	Segments    uint64 // segments that the container ever used: [0, Segments)
	Log         LogPlace
	Incarnation uint32
	MetaSegment uint32 // head of the map pages
	MetaChunk   uint32
	MetaNext    uint32
	Logged      uint64 // data chunks ever logged, up to Position
	Mapped      uint64 // logical chunks that are not holes
	HistoryFl   Position
	TrimFloor   Position
	Catalog     Ref // 0: empty
	CatalogLen  uint32
	Capacity    int64  // bound of the container, bytes; 0: none
	Free        uint64 // segments below Segments that are free
	Jump        Jump
	ColdSegment uint32 // head of the chunks that cleaning moves; none while ColdChunk is 0
	ColdChunk   uint32
	Live        uint64 // chunks of data that a map refers to, in all segments
}

// Jump is how far a mirror has got with a jump epoch: a second forward map, which becomes the first one when it ends.
type Jump struct {
	Root   Ref
	Mapped uint64
	End    Position // of the epoch; 0: there is none
	Got    Reached  // what of the second map holds the source's content; the rest is the mirror's own as of Position
	Size   int64    // logical, bytes, that the epoch brings; 0: the volume's
}

const metaMagic = "CAWRMMET"

// Encode writes m into b, which holds one chunk.
func (m *Meta) Encode(b []byte) {
	clear(b[:ChunkSize])
	copy(b, metaMagic)
	le.PutUint32(b[8:], Version)
	le.PutUint32(b[12:], m.Flags)
	le.PutUint64(b[16:], m.Seq)
	copy(b[24:], m.Container[:])
	copy(b[40:], m.Volume[:])
	le.PutUint64(b[56:], uint64(m.Size))
	le.PutUint64(b[64:], uint64(m.Position))
	le.PutUint64(b[72:], uint64(m.Time))
	le.PutUint64(b[80:], uint64(m.MapRoot))
	le.PutUint32(b[88:], m.MapHeight)
	le.PutUint32(b[92:], m.SegHeight)
	le.PutUint64(b[96:], uint64(m.SegRoot))
	le.PutUint64(b[104:], m.Segments)
	le.PutUint32(b[112:], m.Log.Segment)
	le.PutUint32(b[116:], m.Log.Chunk)
	le.PutUint32(b[120:], m.Log.Next)
	le.PutUint32(b[124:], m.Log.PrevCRC)
	le.PutUint64(b[128:], m.Log.Seq)
	le.PutUint32(b[136:], m.Incarnation)
	le.PutUint32(b[140:], m.MetaSegment)
	le.PutUint32(b[144:], m.MetaChunk)
	le.PutUint32(b[148:], m.MetaNext)
	le.PutUint64(b[152:], m.Logged)
	le.PutUint64(b[160:], m.Mapped)
	le.PutUint64(b[168:], uint64(m.HistoryFl))
	le.PutUint64(b[176:], uint64(m.TrimFloor))
	le.PutUint64(b[184:], uint64(m.Catalog))
	le.PutUint32(b[192:], m.CatalogLen)
	le.PutUint64(b[200:], uint64(m.Capacity))
	le.PutUint64(b[208:], m.Free)
	le.PutUint64(b[216:], uint64(m.Jump.Root))
	le.PutUint64(b[224:], m.Jump.Mapped)
	le.PutUint64(b[232:], uint64(m.Jump.End))
	m.Jump.Got.encode(b)
	le.PutUint32(b[256:], m.ColdSegment)
	le.PutUint32(b[260:], m.ColdChunk)
	le.PutUint64(b[264:], m.Live)
	le.PutUint64(b[272:], uint64(m.Jump.Size))
	seal(b)
}

// DecodeMeta reads a meta chunk. Errors: ErrMagic, ErrVersion, ErrChecksum, ErrInvalid.
func DecodeMeta(b []byte) (Meta, error) {
	var m Meta
	if err := open(b, metaMagic); err != nil {
		return m, err
	}
	m.Flags = le.Uint32(b[12:])
	m.Seq = le.Uint64(b[16:])
	copy(m.Container[:], b[24:])
	copy(m.Volume[:], b[40:])
	m.Size = int64(le.Uint64(b[56:]))
	m.Position = Position(le.Uint64(b[64:]))
	m.Time = int64(le.Uint64(b[72:]))
	m.MapRoot = Ref(le.Uint64(b[80:]))
	m.MapHeight = le.Uint32(b[88:])
	m.SegHeight = le.Uint32(b[92:])
	m.SegRoot = Ref(le.Uint64(b[96:]))
	m.Segments = le.Uint64(b[104:])
	m.Log = LogPlace{le.Uint32(b[112:]), le.Uint32(b[116:]), le.Uint32(b[120:]), le.Uint32(b[124:]), le.Uint64(b[128:])}
	m.Incarnation = le.Uint32(b[136:])
	m.MetaSegment = le.Uint32(b[140:])
	m.MetaChunk = le.Uint32(b[144:])
	m.MetaNext = le.Uint32(b[148:])
	m.Logged = le.Uint64(b[152:])
	m.Mapped = le.Uint64(b[160:])
	m.HistoryFl = Position(le.Uint64(b[168:]))
	m.TrimFloor = Position(le.Uint64(b[176:]))
	m.Catalog = Ref(le.Uint64(b[184:]))
	m.CatalogLen = le.Uint32(b[192:])
	m.Capacity = int64(le.Uint64(b[200:]))
	m.Free = le.Uint64(b[208:])
	m.Jump = Jump{Ref(le.Uint64(b[216:])), le.Uint64(b[224:]), Position(le.Uint64(b[232:])), decodeReached(b), int64(le.Uint64(b[272:]))}
	m.ColdSegment, m.ColdChunk = le.Uint32(b[256:]), le.Uint32(b[260:])
	m.Live = le.Uint64(b[264:])
	if m.Size < 0 || m.Size > MaxLogicalSize || m.Size%ChunkSize != 0 || m.MapHeight < 1 || m.MapHeight > 4 ||
		m.SegHeight < 1 || m.SegHeight > 4 || m.CatalogLen > MaxCatalog || m.Segments > PhysLimit || m.Capacity < 0 ||
		m.Jump.Size < 0 || m.Jump.Size > MaxLogicalSize || m.Jump.Size%ChunkSize != 0 {
		return m, fmt.Errorf("meta chunk: %w", ErrInvalid)
	}
	return m, nil
}

package format

import "fmt"

// Kind tells what a record, or a slot of a summary, is.
type Kind uint8

// The kinds of entries.
const (
	KindNone    Kind = 0 // an empty slot of a summary
	KindData    Kind = 1 // one chunk of data
	KindDiscard Kind = 2 // a range that reads as zeroes and holds no space
	KindZero    Kind = 3 // a range that reads as zeroes and is not a hole
	KindHeader  Kind = 4 // a slot of a summary that holds a batch header
	KindPage    Kind = 5 // a map page
	KindSize    Kind = 6 // a range by which the volume has grown: it ends where that does
)

// Entry is the inverse map of one record.
type Entry struct {
	Birth Position
	LBA   uint64 // logical chunk; 48 bits
	Kind  Kind
	Level uint8  // of a map page
	Count uint32 // chunks of a range; 1 for data; the tree of a map page
	CRC   uint32 // of the data
}

const (
	entrySize    = 24
	batchEntries = 96
	// MaxEntries is the number of entries that one batch header holds.
	MaxEntries = (crcAt - batchEntries) / entrySize
	maxLBA     = 1<<48 - 1
)

func (e *Entry) put(b []byte) {
	le.PutUint64(b, uint64(e.Birth))
	le.PutUint64(b[8:], e.LBA&maxLBA|uint64(e.Kind)<<48|uint64(e.Level)<<56)
	le.PutUint32(b[16:], e.Count)
	le.PutUint32(b[20:], e.CRC)
}

func getEntry(b []byte) Entry {
	w := le.Uint64(b[8:])
	return Entry{Position(le.Uint64(b)), w & maxLBA, Kind(w >> 48), uint8(w >> 56), le.Uint32(b[16:]), le.Uint32(b[20:])}
}

// BatchKind tells which head a batch was appended to.
type BatchKind uint8

// The heads.
const (
	BatchLog  BatchKind = 1 // records in the order of the log
	BatchCold BatchKind = 2 // chunks that cleaning moved
	BatchMeta BatchKind = 3 // map pages
)

// Flags of a batch.
const (
	FlagCommit  = 1 << 0 // recovery may show the records up to this batch's end
	FlagRestart = 1 << 1 // the batches since the last commit are void: the epoch begins again
	FlagJump    = 1 << 2 // of a jump epoch: the newest content as of End of what was born in [First, End), in any order
)

const batchMagic = 0x54414243 // "CBAT"

// BatchHeader is the header chunk of a batch.
type BatchHeader struct {
	Kind        BatchKind
	Flags       uint8
	Tag         uint64 // the container uuid's first 8 bytes
	Seq         uint64
	First, End  Position // half-open range of the positions that the batch holds
	Time        int64    // of the first record, unix nanoseconds
	Logged      uint64   // data chunks logged before this batch
	Incarnation uint32
	PrevCRC     uint32
	Next        uint32 // segment in which the log goes on
	Data        uint16 // data chunks that follow the header
	Entries     []Entry
}

// Encode writes h into b, which holds one chunk, and returns the header's checksum.
// At most MaxEntries entries fit; more is a programming error and panics.
func (h *BatchHeader) Encode(b []byte) uint32 {
	if len(h.Entries) > MaxEntries {
		panic(fmt.Sprintf("format: batch of %d entries", len(h.Entries)))
	}
	clear(b[:ChunkSize])
	le.PutUint32(b, batchMagic)
	le.PutUint16(b[4:], Version)
	b[6], b[7] = byte(h.Kind), h.Flags
	le.PutUint64(b[8:], h.Tag)
	le.PutUint64(b[16:], h.Seq)
	le.PutUint64(b[24:], uint64(h.First))
	le.PutUint64(b[32:], uint64(h.End))
	le.PutUint64(b[40:], uint64(h.Time))
	le.PutUint64(b[48:], h.Logged)
	le.PutUint32(b[56:], h.Incarnation)
	le.PutUint32(b[60:], h.PrevCRC)
	le.PutUint32(b[64:], h.Next)
	le.PutUint16(b[68:], uint16(len(h.Entries)))
	le.PutUint16(b[70:], h.Data)
	for i := range h.Entries {
		h.Entries[i].put(b[batchEntries+i*entrySize:])
	}
	seal(b)
	return le.Uint32(b[crcAt:])
}

// HeaderCRC is the stored checksum of an encoded header.
func HeaderCRC(b []byte) uint32 { return le.Uint32(b[crcAt:]) }

// Decode reads a batch header into h, reusing h.Entries. Errors: ErrMagic, ErrVersion, ErrChecksum, ErrInvalid.
func (h *BatchHeader) Decode(b []byte) error {
	if len(b) < ChunkSize || le.Uint32(b) != batchMagic {
		return ErrMagic
	}
	if v := le.Uint16(b[4:]); v != Version {
		return fmt.Errorf("batch header: %w (format %d, this program knows %d)", ErrVersion, v, Version)
	}
	if le.Uint32(b[crcAt:]) != Sum(b[:crcAt]) {
		return ErrChecksum
	}
	n := int(le.Uint16(b[68:]))
	entries := h.Entries[:0]
	*h = BatchHeader{Kind: BatchKind(b[6]), Flags: b[7], Tag: le.Uint64(b[8:]), Seq: le.Uint64(b[16:]),
		First: Position(le.Uint64(b[24:])), End: Position(le.Uint64(b[32:])), Time: int64(le.Uint64(b[40:])),
		Logged: le.Uint64(b[48:]), Incarnation: le.Uint32(b[56:]), PrevCRC: le.Uint32(b[60:]), Next: le.Uint32(b[64:]),
		Data: le.Uint16(b[70:])}
	bad := n > MaxEntries || int(h.Data) > n || h.End < h.First || h.Kind < BatchLog || h.Kind > BatchMeta
	data := 0
	for i := 0; i < n && !bad; i++ {
		e := getEntry(b[batchEntries+i*entrySize:])
		switch e.Kind {
		case KindData:
			bad = e.Count != 1
			data++
		case KindPage:
			bad = h.Kind != BatchMeta
			data++
		case KindDiscard, KindZero:
			bad = e.Count == 0 || e.LBA+uint64(e.Count) > maxLBA
		case KindSize:
			bad = e.Count == 0 || e.LBA+uint64(e.Count) > MaxLogicalSize/ChunkSize || h.Kind != BatchLog
		default:
			bad = true
		}
		entries = append(entries, e)
	}
	h.Entries = entries
	if bad || data != int(h.Data) {
		return fmt.Errorf("batch header: %w", ErrInvalid)
	}
	return nil
}

// Chunks is the number of chunks that the batch takes on disk, header included.
func (h *BatchHeader) Chunks() uint32 { return 1 + uint32(h.Data) }

// Commits tells whether the records up to this batch's end may be shown.
func (h *BatchHeader) Commits() bool { return h.Flags&FlagCommit != 0 }

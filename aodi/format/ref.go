package format

// Phys is the number of a chunk in the container.
type Phys uint64

// Ref is an entry of a map page: where a chunk is and what its checksum must be. 0 is "not mapped".
type Ref uint64

const (
	physBits = 40
	physMask = 1<<physBits - 1
	// PhysLimit is the first physical chunk number that the disk format cannot hold.
	PhysLimit = 1 << (physBits - 1)

	// Unmapped is the reference of a chunk that was never written or was discarded.
	Unmapped Ref = 0
	// ZeroRef is the reference of a chunk that reads as zeroes though it is not a hole.
	ZeroRef Ref = 1
	// HoleRef is the reference of a chunk that was discarded in a clone, whose base holds something there.
	HoleRef Ref = 2

	// RefsPerPage is the fan-out of the forward map and of inner pages.
	RefsPerPage = ChunkSize / 8
)

// MakeRef joins a place and the low 24 bits of a checksum.
func MakeRef(p Phys, sum uint32) Ref { return Ref(uint64(p)&physMask | uint64(sum)<<physBits) }

// Phys is the place that the reference leads to.
func (r Ref) Phys() Phys { return Phys(r & physMask) }

// Sum is the part of the checksum that the reference holds.
func (r Ref) Sum() uint32 { return uint32(r >> physBits) }

// Matches tells whether a chunk with this CRC32C is the one that was referenced.
func (r Ref) Matches(sum uint32) bool { return uint32(r>>physBits) == sum&0xffffff }

// HasData tells whether the reference leads to a chunk in a segment.
func (r Ref) HasData() bool { return r.Phys() >= DataStart }

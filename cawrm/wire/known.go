package wire

import (
	"math/bits"

	"cawrm/aodi/format"
)

// Known is what a source knows of its mirror's content: which logical chunks hold something that looks like what is to be sent. It
// is fed by what a Packer packs, holds no content, forgets the oldest, and outlives the connection. One goroutine at a time.
//
// What a mirror shows while it reads a frame lies between what it has acknowledged (acked) when the frame was packed, and what was packed before; a jump
// epoch's own frames are not shown before its end. So a chunk is a reference for the frame of an epoch that ends at E if
//
//	K1  the epoch that brought its content is acknowledged: pos <= acked
//	K2  nothing packed since has changed it, but for that same epoch: until >= E
//
// Known can be wrong where others have fed the mirror meanwhile. The digest in the frame tells the peer, and nothing is taken.
type Known struct {
	marks []uint64          // the upper bits of a mark, and the slot of the chunk that had it last; 0: none
	slots []slot            // the first is not used
	next  int               // the one that is to be used next, when all are
	at    map[uint64]uint32 // the newest slot of a logical chunk
	base  uint32            // added to a window's numbers: each connection has a window of its own

	Passed format.Position // what was packed below it are whole epochs
	Last   format.Position // the end of the epoch of the last frame
}

// slot is a logical chunk with what was sent for it.
type slot struct {
	lba   uint64
	pos   format.Position // the end of the epoch that brought it
	until format.Position // of the one that replaced it
	crc   uint32
	win   uint32 // its number in the window
}

const (
	slotBits = 19 // 2 GiB of chunks
	maxSlots = 1 << slotBits
	allMarks = 1 << 21 // 16 MiB

	never = ^format.Position(0)
)

// mark is where a mark is kept, and what is kept for it apart from the slot.
func (k *Known) mark(m uint64) (at *uint64, upper uint64) {
	return &k.marks[m>>(64-bits.Len(uint(len(k.marks)-1)))], m >> slotBits << slotBits
}

// find is the slot of a chunk that has a mark; 0: none is known.
func (k *Known) find(m uint64) uint32 {
	if len(k.marks) == 0 {
		return 0
	}
	at, upper := k.mark(m)
	if *at>>slotBits<<slotBits != upper {
		return 0
	}
	return uint32(*at & (maxSlots - 1))
}

// note remembers what is being sent for a chunk.
func (k *Known) note(s slot, marks []uint64) {
	n := k.slot()
	k.slots[n] = s
	k.at[s.lba] = n
	for _, m := range marks {
		at, upper := k.mark(m)
		*at = upper | uint64(n)
	}
}

// slot is a free one, or that of what was noted first.
func (k *Known) slot() uint32 {
	if len(k.slots) == 0 {
		k.slots, k.at, k.marks = make([]slot, 1), map[uint64]uint32{}, make([]uint64, 1<<12)
	}
	if len(k.slots) < maxSlots {
		k.slots = append(k.slots, slot{})
		if len(k.slots)*4 > len(k.marks) && len(k.marks) < allMarks {
			k.grow()
		}
		return uint32(len(k.slots) - 1)
	}
	k.next = k.next%(maxSlots-1) + 1
	n := uint32(k.next)
	if lba := k.slots[n].lba; k.at[lba] == n {
		delete(k.at, lba)
	}
	return n
}

func (k *Known) grow() {
	old := k.marks
	k.marks = make([]uint64, 2*len(old))
	for _, m := range old {
		if m != 0 {
			at, _ := k.mark(m)
			*at = m
		}
	}
}

// replaced says that an epoch that ends at pos changes chunks.
func (k *Known) replaced(lba, count uint64, pos format.Position) {
	end := func(lba uint64, n uint32) {
		k.slots[n].until = pos
		delete(k.at, lba)
	}
	if count > uint64(len(k.at)) {
		for at, n := range k.at {
			if at-lba < count {
				end(at, n)
			}
		}
		return
	}
	for i := range count {
		if n, ok := k.at[lba+i]; ok {
			end(lba+i, n)
		}
	}
}

// forgetWindow makes the window of a new connection begin: what was in the one before is not in it.
func (k *Known) forgetWindow(old *window) { k.base += uint32(old.n) + WindowChunks + 1 }

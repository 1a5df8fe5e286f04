package format

import "slices"

// Reach is a part of what a mirror has got of jump epochs that were interrupted: the logical chunks below Cursor, which no part
// before it covers, are as of Base, or newer.
type Reach struct {
	Base   Position
	Cursor uint64
}

// Reached is all that it has got of them. A source goes over the chunks from the first to the last and sends what is newer
// than what the mirror has, so each session that breaks off leaves one part, and takes the place of those that it went past:
// cursors grow from part to part, and bases fall.
type Reached []Reach

// MaxReach bounds the parts.
const MaxReach = 16

// ReachedTo is one part, or none when base is 0.
func ReachedTo(base Position, cursor uint64) Reached {
	if base == 0 {
		return nil
	}
	return Reached{{base, cursor}}
}

// Took notes that a session with a cut at base has come to cursor; 0: to no chunk yet, but something else of it has come.
func (r *Reached) Took(base Position, cursor uint64) {
	at := 0
	for ; at < len(*r) && (*r)[at].Base > base; at++ { // those are newer, though not so far
		if (*r)[at].Cursor >= cursor {
			return
		}
	}
	past := at
	for past < len(*r) && ((*r)[past].Cursor <= cursor || (*r)[past].Base == base) {
		cursor = max(cursor, (*r)[past].Cursor)
		past++
	}
	*r = slices.Replace(*r, at, past, Reach{base, cursor}).bounded()
}

// bounded forgets the part that is the smallest: the one behind it covers its chunks, with an older base. The first stays: nothing
// older may be sent than what is there, however little that is.
func (r Reached) bounded() Reached {
	if len(r) <= MaxReach {
		return r
	}
	at := 1
	for i := 2; i < len(r)-1; i++ {
		if r[i].Cursor-r[i-1].Cursor < r[at].Cursor-r[at-1].Cursor {
			at = i
		}
	}
	return slices.Delete(r, at, at+1)
}

// Base is what a chunk is as of, at least; 0 when nothing is known of it.
func (r Reached) Base(lba uint64) Position {
	for _, p := range r {
		if lba < p.Cursor {
			return p.Base
		}
	}
	return 0
}

// Newest is the greatest base: what is sent from now on must not be older. 0 when there is none.
func (r Reached) Newest() Position {
	if len(r) == 0 {
		return 0
	}
	return r[0].Base
}

// Least says it in one part: all chunks below cursor are as of base, or newer.
func (r Reached) Least() (base Position, cursor uint64) {
	if len(r) == 0 {
		return 0, 0
	}
	last := r[len(r)-1]
	return last.Base, last.Cursor
}

// Valid tells whether cursors grow and bases fall, and there are not too many.
func (r Reached) Valid() bool {
	for i, p := range r {
		if p.Base == 0 || i > 0 && (p.Base >= r[i-1].Base || p.Cursor <= r[i-1].Cursor) {
			return false
		}
	}
	return len(r) <= MaxReach
}

// Where a meta chunk has the last part, and, from the first on, those before it; base 0 ends them.
const (
	reachLast  = 240
	reachNewer = 280
	reachSize  = 16
)

func (r Reached) encode(meta []byte) {
	for i, p := range r {
		b := meta[reachNewer+i*reachSize:]
		if i == len(r)-1 {
			b = meta[reachLast:]
		}
		le.PutUint64(b, uint64(p.Base))
		le.PutUint64(b[8:], p.Cursor)
	}
}

func decodeReached(meta []byte) Reached {
	at := func(off int) Reach { return Reach{Position(le.Uint64(meta[off:])), le.Uint64(meta[off+8:])} }
	var r Reached
	for i := range MaxReach - 1 {
		p := at(reachNewer + i*reachSize)
		if p.Base == 0 {
			break
		}
		r = append(r, p)
	}
	if last := at(reachLast); last.Base > 0 {
		r = append(r, last)
	}
	return r
}

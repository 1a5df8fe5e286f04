package cawrm

import (
	"fmt"
	"slices"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// Head is one end of a history: the lineage that led to it, and how far it got.
type Head struct {
	Lineage  []format.Lineage
	Position aodi.Position
}

// Relation says how a mirror's head stands to its source's.
type Relation uint8

// The relations. Only Same and Behind can be mirrored as they are.
const (
	Same      Relation = iota // nothing to do
	Behind                    // the mirror lacks [Fork, source's position)
	Ahead                     // the source lacks [Fork, mirror's position)
	Diverged                  // both hold what the other lacks from Fork on
	Unrelated                 // not even the first link agrees
)

func (r Relation) String() string {
	return [...]string{"same", "behind", "ahead", "diverged", "unrelated"}[r]
}

// Compare tells how mirror stands to source, and the position up to which their histories agree.
//
// A link of a lineage says that the records from its start on, up to the start of the next link or to the head,
// were written under its id. Ids are never given twice, so records at the same position under the same id are the
// same records, and two histories agree as long as their links do:
//
//	source  A from 0 ......................... 80
//	mirror  A from 0 ........ | B from 50 ............ T+7     promoted at 50, then writing beyond T
//	                          ^ fork: A is cut at 50 in one of them, so [50, 80) of A is only in the other
//
// A promoted volume writes at positions far beyond the fork (its term is in their high bits). So the fork is where
// the shared link ends first, and a head that stands exactly there has nothing of its own.
func Compare(mirror, source Head) (Relation, aodi.Position) {
	if len(mirror.Lineage) == 0 || len(source.Lineage) == 0 || mirror.Lineage[0] != source.Lineage[0] {
		return Unrelated, 0
	}
	fork := aodi.Position(0)
	for i := 0; i < len(mirror.Lineage) && i < len(source.Lineage); i++ {
		if mirror.Lineage[i] != source.Lineage[i] {
			break
		}
		m, s := mirror.linkEnd(i), source.linkEnd(i)
		fork = min(m, s)
		if m != s {
			break
		}
	}
	switch {
	case mirror.Position <= fork && source.Position <= fork:
		return Same, fork
	case mirror.Position <= fork:
		return Behind, fork
	case source.Position <= fork:
		return Ahead, fork
	}
	return Diverged, fork
}

// termBits: a link's records begin with a term of positions of its own, which stands in the bits above.
const termBits = 48

// has tells whether the content at p is a state of this history: the record before it is of one of its links. What an old
// primary wrote beyond the fork is not, wherever it was kept.
func (h Head) has(p aodi.Position) bool {
	for i := range h.Lineage {
		first, end := h.Lineage[i].Start, h.linkEnd(i)
		if i > 0 {
			first = max(first, end>>termBits<<termBits)
		}
		if p == h.Lineage[i].Start || p > first && p <= end {
			return true
		}
	}
	return false
}

// succeeds tells whether h's history was branched off the other's, by promotions, and the other's was not since: then the
// other is an old primary, or a mirror of it, and h is what took its place.
func (h Head) succeeds(other Head) bool {
	n := len(other.Lineage)
	return n > 0 && len(h.Lineage) > n && slices.Equal(h.Lineage[:n], other.Lineage)
}

// linkEnd is the position up to which records were written under link i.
func (h Head) linkEnd(i int) aodi.Position {
	if i+1 < len(h.Lineage) {
		return min(h.Lineage[i+1].Start, h.Position)
	}
	return h.Position
}

// String names the head for messages: the last lineage id and the position.
func (h Head) String() string {
	if len(h.Lineage) == 0 {
		return fmt.Sprintf("position %d of no lineage", h.Position)
	}
	l := h.Lineage[len(h.Lineage)-1]
	return fmt.Sprintf("position %d of lineage %v (from %d)", h.Position, l.ID, l.Start)
}

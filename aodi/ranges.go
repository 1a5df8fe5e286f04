package aodi

import (
	"cmp"
	"slices"
)

// span is a range of logical chunks, half-open.
type span struct{ first, end uint64 }

// ranges are spans; merged ones are in order and do not touch.
type ranges []span

// merged returns the same chunks in order, as few spans as possible. It changes g.
func (g ranges) merged() ranges {
	slices.SortFunc(g, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	out := g[:0]
	for _, s := range g {
		if n := len(out); n > 0 && s.first <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, s.end)
		} else {
			out = append(out, s)
		}
	}
	return out
}

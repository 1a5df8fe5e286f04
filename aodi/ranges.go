package aodi

import (
	"cmp"
	"slices"
)

// span is a range of logical chunks, half-open.
type span struct{ first, end uint64 }

// Range is a range of logical chunks, half-open.
type Range struct{ First, End uint64 }

// ranges are spans; merged ones are in order and do not touch.
type ranges []span

// has tells whether a chunk lies in g, which is merged.
func (g ranges) has(chunk uint64) bool {
	i, _ := slices.BinarySearchFunc(g, chunk, func(s span, c uint64) int {
		if s.end <= c {
			return -1
		}
		return 1
	})
	return i < len(g) && g[i].first <= chunk
}

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

// within returns at most n ranges that hold all of g, which is merged: the smallest gaps are closed first, by powers of two.
func (g ranges) within(n int) ranges {
	for gap := uint64(1); len(g) > n; gap *= 2 {
		out := g[:1]
		for _, s := range g[1:] {
			if last := &out[len(out)-1]; s.first-last.end <= gap {
				last.end = s.end
			} else {
				out = append(out, s)
			}
		}
		g = out
	}
	return g
}

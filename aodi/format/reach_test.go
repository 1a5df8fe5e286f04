package format_test

import (
	"testing"

	"pgregory.net/rapid"

	"cawrm/aodi/format"
)

// TestReached ensures that sessions which break off anywhere, of cuts in any order, are remembered: never more than came,
// exactly what came as long as there is room, and always the newest.
func TestReached(t *testing.T) {
	const chunks = 100
	rapid.Check(t, func(t *rapid.T) {
		var r format.Reached
		var model [chunks]format.Position
		var newest format.Position
		most := 0
		for range rapid.IntRange(0, 3*format.MaxReach).Draw(t, "sessions") {
			base := format.Position(rapid.Uint64Range(1, 40).Draw(t, "base"))
			r.Took(base, 0)
			newest = max(newest, base)
			for cursor := range rapid.Uint64Range(0, chunks).Draw(t, "cursor") {
				r.Took(base, cursor+1)
				model[cursor] = max(model[cursor], base)
			}
			parts := 0
			if newest > model[0] {
				parts++
			}
			for i := range model {
				if i == chunks-1 && model[i] > 0 || i < chunks-1 && model[i] > model[i+1] {
					parts++
				}
			}
			most = max(most, parts)
			if !r.Valid() || r.Newest() != newest {
				t.Fatalf("%v, and something of %d has come", r, newest)
			}
			base, cursor := r.Least()
			for i, want := range model {
				got := r.Base(uint64(i))
				if got > want || most <= format.MaxReach && got != want {
					t.Fatalf("chunk %d is as of %d: %v says %d", i, want, r, got)
				}
				if uint64(i) < cursor && got < base || got > r.Newest() {
					t.Fatalf("chunk %d is as of %d: least %d below %d, newest %d", i, got, base, cursor, r.Newest())
				}
			}
		}
	})
}

// TestReachedForgetsLeast ensures that when there are too many parts, the one that is missed least is forgotten, but not the
// newest.
func TestReachedForgetsLeast(t *testing.T) {
	var r format.Reached
	for i := range uint64(format.MaxReach + 1) {
		n := format.MaxReach + 1 - i
		cursor := n * 1000
		if n == 7 {
			cursor -= 990
		}
		r.Took(format.Position(i+1), cursor)
	}
	if !r.Valid() || len(r) != format.MaxReach {
		t.Fatalf("%v", r)
	}
	for _, p := range r {
		if p.Cursor == 6010 {
			t.Fatalf("the smallest part is still there: %v", r)
		}
	}
	if r.Took(40, 0); !r.Valid() || len(r) != format.MaxReach || r.Newest() != 40 {
		t.Fatalf("the newest part was forgotten: %v", r)
	}
}

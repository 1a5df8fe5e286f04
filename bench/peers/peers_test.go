package peers

import "testing"

// TestPrefix ensures what counts as a state that the source once had.
func TestPrefix(t *testing.T) {
	since := state{[]uint64{2, 0, 1}, 2} // of writes 1 and 2
	history := []int64{2, 0, 0, 1, 0, 2} // writes 3 to 6 follow
	for _, c := range []struct {
		held []uint64
		want bool
	}{
		{[]uint64{2, 0, 1}, true},
		{[]uint64{3, 0, 1}, true},
		{[]uint64{3, 4, 1}, true},
		{[]uint64{5, 4, 1}, true},
		{[]uint64{5, 4, 6}, true},
		{[]uint64{5, 0, 1}, false}, // 4 is missing
		{[]uint64{3, 4, 6}, false}, // 5 is missing
		{[]uint64{2, 4, 1}, false},
		{[]uint64{0, 0, 1}, false}, // older than the state
	} {
		if got := isPrefix(since, history, c.held); got != c.want {
			t.Errorf("%v: %v, want %v", c.held, got, c.want)
		}
	}
}

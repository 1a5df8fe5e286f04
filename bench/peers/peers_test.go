package peers

import "testing"

// TestPrefix ensures what counts as a state that the source once had.
func TestPrefix(t *testing.T) {
	history := []int64{0, 1, 0, 2} // writes 1 to 4
	for _, c := range []struct {
		held []uint64
		want bool
	}{
		{[]uint64{0, 0, 0}, true},
		{[]uint64{1, 0, 0}, true},
		{[]uint64{1, 2, 0}, true},
		{[]uint64{3, 2, 0}, true},
		{[]uint64{3, 2, 4}, true},
		{[]uint64{3, 0, 0}, false}, // 2 is missing
		{[]uint64{1, 2, 4}, false}, // 3 is missing
		{[]uint64{0, 2, 0}, false},
	} {
		if got := isPrefix(history, c.held); got != c.want {
			t.Errorf("%v: %v, want %v", c.held, got, c.want)
		}
	}
}

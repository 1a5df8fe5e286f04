package baseline

import "math/bits"

// bitmap has a bit for each chunk.
type bitmap []uint64

func newBitmap(chunks int64) bitmap { return make(bitmap, (chunks+63)/64) }

func (b bitmap) set(c int64)      { b[c/64] |= 1 << (c % 64) }
func (b bitmap) clear(c int64)    { b[c/64] &^= 1 << (c % 64) }
func (b bitmap) has(c int64) bool { return b[c/64]&(1<<(c%64)) != 0 }

// next is the first set bit from c on, or limit.
func (b bitmap) next(c, limit int64) int64 {
	for c < limit {
		word := b[c/64] >> (c % 64)
		if word != 0 {
			return min(c+int64(bits.TrailingZeros64(word)), limit)
		}
		c = (c/64 + 1) * 64
	}
	return limit
}

// count is how many are set.
func (b bitmap) count() (n int64) {
	for _, w := range b {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

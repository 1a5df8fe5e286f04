package wire

// Marks are what similar chunks have in common. A hash rolls over a chunk's bytes, and where its middle bits are zero, about once in
// 512 bytes, it is a mark: so a text that was moved by some bytes, or changed here and there, has most of its marks still.

const (
	markBits  = 9  // one in so many bytes, as a power of two
	markSkip  = 48 // bytes on which a mark depends
	maxMarks  = 8  // of a chunk
	markPlace = 40 // the lowest of the bits that are looked at
)

// gear has a number for each byte. It is this side's own: marks do not go on the wire.
var gear = func() (g [256]uint64) {
	for i, x := 0, uint64(0x9e3779b97f4a7c15); i < len(g); i++ { // splitmix64
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return g
}()

// appendMarks appends those of a chunk.
func appendMarks(marks []uint64, chunk []byte) []uint64 {
	const mask = (1<<markBits - 1) << markPlace
	h, last, n := uint64(0), uint64(0), 0
	for _, b := range chunk[:markSkip] {
		h = h<<1 + gear[b]
	}
	for _, b := range chunk[markSkip:] {
		if h = h<<1 + gear[b]; h&mask == 0 && h != last {
			if marks = append(marks, h*0x9e3779b97f4a7c15); n+1 == maxMarks {
				break
			}
			last, n = h, n+1
		}
	}
	return marks
}

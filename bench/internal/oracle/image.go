package oracle

import (
	"crypto/sha256"
	"fmt"

	"cawrm/bench/internal/nbdclient"
)

// Image is what a whole export shows: for each block the request that wrote
// it, 0 for zeroes; and the checksum of all bytes.
type Image struct {
	Blocks []uint64
	Sum    [sha256.Size]byte
}

// ReadImage reads the export. A block that holds anything else than zeroes or
// its intact stamp is an error (O1).
func ReadImage(c *nbdclient.Client) (Image, error) {
	var im Image
	h := sha256.New()
	im.Blocks = make([]uint64, 0, c.Size()/BlockSize)
	err := c.Sweep(func(offset int64, piece []byte) error {
		h.Write(piece)
		if len(piece)%BlockSize != 0 {
			return fmt.Errorf("the export's size %d is no multiple of %d", c.Size(), BlockSize)
		}
		for i := 0; i < len(piece); i += BlockSize {
			seq, err := ReadStamp(piece[i:i+BlockSize], int64(len(im.Blocks)))
			if err != nil {
				return err
			}
			im.Blocks = append(im.Blocks, seq)
		}
		return nil
	})
	h.Sum(im.Sum[:0])
	return im, err
}

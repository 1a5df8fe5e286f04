package aodi

import (
	"fmt"

	"cawrm/aodi/format"
)

// MaxRanges bounds what Branch returns.
const MaxRanges = 1 << 20

// Branch tells what a mirror has written or discarded from fork on, where its history parts from its source's: all else
// is the same at both. Where there are more than MaxRanges, chunks between are counted in. Not beside Stage. Errors: the
// volume's failure, ENOSPC, the disk's.
func (v *Volume) Branch(fork Position) ([]Range, error) {
	c, err := v.newCut(CutFrom{Position: fork})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	g, err := c.touched()
	if err != nil {
		return nil, fmt.Errorf("what was written from %d on: %w", fork, err)
	}
	g = g.within(MaxRanges)
	out := make([]Range, len(g))
	for i, s := range g {
		out[i] = Range{s.first, s.end}
	}
	return out, nil
}

// touched finds the chunks that differ at End from what they were at From: in the log where that is complete, else by the
// births in the map, and then every hole may be a discard.
func (c *Cut) touched() (ranges, error) {
	g, err := c.findGone()
	if err != nil {
		return nil, err
	}
	if len(g) == 1 && g[0] == (span{0, c.chunks}) {
		if g, err = c.holes(g[0]); err != nil {
			return nil, err
		}
	}
	var b LogBatch
	for {
		b.Entries = b.Entries[:0]
		if err := c.nextYoung(&b); err != nil {
			return nil, err
		}
		for _, e := range b.Entries {
			g = append(g, span{e.LBA, e.LBA + uint64(e.Count)})
		}
		if c.at >= c.chunks {
			return g.merged(), nil
		}
		if len(g) > 4*MaxRanges {
			g = g.merged().within(MaxRanges)
		}
	}
}

// holes are the chunks of a range that hold no data.
func (c *Cut) holes(in span) (ranges, error) {
	var g ranges
	for at := in.first; at < in.end; {
		end, kind, err := c.run(at, in.end)
		if err != nil {
			return nil, err
		}
		if kind != format.KindData {
			g = append(g, span{at, end})
		}
		if len(g) > 4*MaxRanges {
			g = g.merged().within(MaxRanges)
		}
		at = end
	}
	return g.merged(), nil
}

// nextYoung adds the chunks of one leaf that were born in [From, End).
func (c *Cut) nextYoung(b *LogBatch) error {
	index, leaf, err := c.fwd.next(c.at/format.RefsPerPage, (c.chunks+format.RefsPerPage-1)/format.RefsPerPage)
	if err != nil {
		return err
	}
	c.at = max(c.at, index*format.RefsPerPage)
	for stop := min((index+1)*format.RefsPerPage, c.chunks); c.at < stop; c.at++ {
		e, err := c.born(c.at, refAt(leaf, c.at%format.RefsPerPage))
		if err != nil {
			return err
		}
		if e.Kind == format.KindData {
			b.Entries = append(b.Entries, e)
		}
	}
	return nil
}

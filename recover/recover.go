package recovery

import (
	"errors"
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// Container is what the fixed chunks of a container say.
type Container struct {
	Super format.Super
	Meta  format.Meta // the newest valid checkpoint
	Geo   format.Geometry
	// Stale tells why the other meta chunk was not valid; nil when it was, or was never written.
	Stale error
}

// Tag is what every batch of the container carries.
func (c *Container) Tag() uint64 { return Tag(c.Super.Container) }

// Tag is the first 8 bytes of a container's uuid.
func Tag(u format.UUID) uint64 {
	var t uint64
	for i := 7; i >= 0; i-- {
		t = t<<8 | uint64(u[i])
	}
	return t
}

// Newest reads the super chunk and the newest valid checkpoint.
// Errors wrap format.ErrMagic (not a container), ErrVersion, ErrChecksum, and say what to do.
func Newest(d disk.Disk) (*Container, error) {
	b := make([]byte, format.ChunkSize)
	if err := d.ReadAt(b[:min(d.Size(), format.ChunkSize)], 0); err != nil {
		return nil, err
	}
	super, err := format.DecodeSuper(b)
	if short := d.Size() < format.DataStart*format.ChunkSize; short && errors.Is(err, format.ErrMagic) {
		return nil, fmt.Errorf("%s: not a cawrm container (%d bytes long): %w; make one with `cawrm create`", d.Name(), d.Size(), format.ErrMagic)
	} else if short {
		return nil, fmt.Errorf("%s: truncated: a container has at least %d bytes, this one ends at %d; restore its full length, or the container from a mirror",
			d.Name(), format.DataStart*format.ChunkSize, d.Size())
	}
	if err != nil {
		return nil, explain(d, "super chunk", err)
	}
	c := &Container{Super: super, Geo: format.NewGeometry(super.SegmentChunks)}
	var errs [2]error
	found := false
	for i := range errs {
		if err := d.ReadAt(b, int64(1+i)*format.ChunkSize); err != nil {
			return nil, err
		}
		m, err := format.DecodeMeta(b)
		if err == nil && m.Container != super.Container {
			err = fmt.Errorf("it belongs to container %s, not %s: %w", m.Container, super.Container, format.ErrInvalid)
		}
		if errs[i] = err; err == nil && (!found || m.Seq > c.Meta.Seq) {
			c.Meta, found = m, true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: no valid checkpoint: A: %w; B: %w; restore the container from a mirror", d.Name(), errs[0], errs[1])
	}
	c.Stale = errors.Join(errs[0], errs[1])
	if errors.Is(c.Stale, format.ErrMagic) {
		c.Stale = nil // only one was ever written
	}
	if most := uint64(format.PhysLimit-format.DataStart) / uint64(c.Geo.SegmentChunks); c.Meta.Segments > most { // also: Bytes does not overflow
		return nil, fmt.Errorf("%s: checkpoint %d: %d segments, of at most %d: %w; restore the container from a mirror",
			d.Name(), c.Meta.Seq, c.Meta.Segments, most, format.ErrInvalid)
	}
	if need := c.Geo.Bytes(c.Meta.Segments); d.Size() < need {
		return nil, fmt.Errorf("%s: truncated: checkpoint %d needs %d bytes, the container ends at %d; restore its full length, or the container from a mirror; `cawrm serve --rescue` shows what is there",
			d.Name(), c.Meta.Seq, need, d.Size())
	}
	return c, nil
}

// reservable bounds how many segments beyond those in use a checkpoint or the log may have reserved, and so what a reader has
// to keep account of.
const reservable = 1 << 16

// Places looks at where the checkpoint leads, which whoever applies it believes. Check reports the same as C2 and C5.
func (c *Container) Places(d disk.Disk) error {
	err := c.places()
	if err != nil {
		err = fmt.Errorf("%s: checkpoint %d: %w: %w; restore the container from a mirror", d.Name(), c.Meta.Seq, err, format.ErrInvalid)
	}
	return err
}

func (c *Container) places() error {
	m := &c.Meta
	for what, r := range map[string]format.Ref{"forward map": m.MapRoot, "segment tree": m.SegRoot, "catalog": m.Catalog} {
		if r != format.Unmapped && (!r.HasData() || int64(r.Phys()) >= c.Geo.Bytes(m.Segments)/format.ChunkSize) {
			return fmt.Errorf("the %s is at chunk %d, outside of %d segments", what, r.Phys(), m.Segments)
		}
	}
	for _, seg := range []uint32{m.Log.Segment, m.Log.Next, m.MetaSegment, m.MetaNext, coldHead(m)} {
		if seg != noSegment && !c.CanReserve(seg) {
			return fmt.Errorf("segment %d is in use or reserved, of %d", seg, m.Segments)
		}
	}
	if slots := c.Geo.Slots(); m.Log.Chunk > slots || m.MetaChunk > slots || m.ColdChunk > slots {
		return fmt.Errorf("the log goes on at chunk %d, pages at %d and cold chunks at %d, a segment has %d", m.Log.Chunk, m.MetaChunk, m.ColdChunk, slots)
	}
	return nil
}

// CanReserve tells whether a segment is one that the container has or can have reserved.
func (c *Container) CanReserve(seg uint32) bool {
	n := uint64(seg)
	return n < c.Meta.Segments+reservable && n < (format.PhysLimit-format.DataStart)/uint64(c.Geo.SegmentChunks)
}

func explain(d disk.Disk, what string, err error) error {
	switch {
	case errors.Is(err, format.ErrMagic):
		return fmt.Errorf("%s: not a cawrm container: %w; make one with `cawrm create`", d.Name(), err)
	case errors.Is(err, format.ErrVersion):
		return fmt.Errorf("%s: %s: %w; open it with the program that wrote it", d.Name(), what, err)
	}
	return fmt.Errorf("%s: %s: %w; `cawrm check --repair` makes it anew where it can, else restore the container from a mirror", d.Name(), what, err)
}

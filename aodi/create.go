package aodi

import (
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// CreateOptions say what to create.
type CreateOptions struct {
	Size          int64  // logical size in bytes, a multiple of 4096, at most 16 TiB; 0 with Mirror
	Mirror        bool   // an empty mirror: size and identity come from its first source
	Capacity      int64  // bound of the container in bytes; 0: what the file system has, or the device
	SegmentChunks uint32 // chunks in a segment, a power of two from 32 to 65536; 0: 2048 (8 MiB), fewer in a small container
}

// Create makes a container at path: a file that does not exist or is empty, or a block device, whose content is
// lost. Errors name the path and what to do; a file that was begun is removed again.
func Create(path string, opt CreateOptions) error {
	return createIn(disk.FileSystem{}, path, opt)
}

func createIn(files disk.Files, path string, opt CreateOptions) error {
	d, err := files.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(CreateOn(d, opt), d.Close())
	if err != nil && !d.Fixed() {
		err = errors.Join(err, files.Remove(path)) // it was empty or not there
	}
	return err
}

// The segments of a new container.
const (
	firstLog, firstMeta, nextLog, nextMeta, firstSegments = 0, 1, 2, 3, 4
)

// CreateOn is Create on a disk that is open and stays so.
func CreateOn(d disk.Disk, opt CreateOptions) error {
	switch {
	case opt.Mirror && opt.Size != 0:
		return fmt.Errorf("%s: a mirror takes its size from its source: %w", d.Name(), syscall.EINVAL)
	case !opt.Mirror && (opt.Size <= 0 || opt.Size > format.MaxLogicalSize || opt.Size%chunkSize != 0):
		return fmt.Errorf("%s: size %d: must be a multiple of 4096 bytes, at least 4096 and at most 16 TiB: %w", d.Name(), opt.Size, syscall.EINVAL)
	}
	room := opt.Capacity
	if d.Fixed() && (room == 0 || room > d.Size()) {
		room = d.Size()
	}
	if opt.SegmentChunks == 0 {
		opt.SegmentChunks = format.DefaultSegmentChunks
		if room > 0 {
			opt.SegmentChunks = segmentChunksFor(room)
		}
	}
	geo := format.NewGeometry(opt.SegmentChunks)
	if limit := segmentLimit(d, geo, opt.Capacity); opt.Capacity < 0 || limit < firstSegments+metaReserve {
		return fmt.Errorf("%s: %d bytes are too small, a container needs at least %d: %w", d.Name(), room,
			geo.Bytes(firstSegments+metaReserve), syscall.ENOSPC)
	}
	now := time.Now()
	super := format.Super{Container: newUUID(), SegmentChunks: opt.SegmentChunks, Created: now.UnixNano()}
	meta := format.Meta{Flags: format.FlagClean, Seq: 1, Container: super.Container, Size: opt.Size, Time: now.UnixNano(),
		MapHeight: uint32(heightFor(uint64(opt.Size/chunkSize), format.RefsPerPage)), SegHeight: segmentTreeHeight,
		Segments: firstSegments, Free: firstSegments,
		Log: format.LogPlace{Segment: firstLog, Next: nextLog, Seq: 1}, MetaSegment: firstMeta, MetaNext: nextMeta, Capacity: opt.Capacity}
	if opt.Mirror {
		meta.Flags |= format.FlagMirror | format.FlagNoIdentity
	} else {
		meta.Volume = newUUID()
	}
	return writeNew(d, geo, &super, &meta)
}

// writeNew writes the fixed chunks, the super chunk last: before it is there, nothing is a container.
func writeNew(d disk.Disk, geo format.Geometry, super *format.Super, meta *format.Meta) error {
	// The heads' segments have space from the start: all others get theirs before a record is accepted that needs it.
	if err := d.Reserve(0, geo.Bytes(firstMeta+1)); err != nil {
		return err
	}
	if err := d.Grow(geo.Bytes(firstSegments)); err != nil {
		return err
	}
	head := make([]byte, format.DataStart*chunkSize)
	meta.Encode(head[2*chunkSize:]) // chunk 1 + seq%2
	if err := d.WriteCached(head, 0); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	super.Encode(head)
	if err := d.WriteCached(head[:chunkSize], 0); err != nil {
		return err
	}
	return d.Sync()
}

func newUUID() format.UUID {
	var u format.UUID
	_, _ = rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

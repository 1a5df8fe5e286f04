// Package probe tells what a block device holds, so that creating a volume does not destroy it by mistake.
package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// signature is a text that stands at an offset of a device that is in use by something.
type signature struct {
	what   string
	offset int64
	magic  string
}

// The offsets are bytes. Where a signature may stand at several places each has its line.
var signatures = []signature{
	{"a cawrm container", 0, "CAWRMVOL"},
	{"an xfs file system", 0, "XFSB"},
	{"a LUKS container", 0, "LUKS\xba\xbe"},
	{"a Ceph OSD", 0, "bluestore block device"},
	{"an ntfs file system", 3, "NTFS    "},
	{"a fat file system", 54, "FAT"},
	{"a fat file system", 82, "FAT32"},
	{"a partition table", 510, "\x55\xaa"},
	{"a GPT partition table", 512, "EFI PART"},
	{"a GPT partition table", 4096, "EFI PART"},
	{"an LVM physical volume", 0, "LABELONE"},
	{"an LVM physical volume", 512, "LABELONE"},
	{"an LVM physical volume", 1024, "LABELONE"},
	{"an LVM physical volume", 1536, "LABELONE"},
	{"an f2fs file system", 1024, "\x10\x20\xf5\xf2"},
	{"an erofs file system", 1024, "\xe2\xe1\xf5\xe0"},
	{"an ext2, ext3 or ext4 file system", 1080, "\x53\xef"},
	{"a swap area", 4086, "SWAPSPACE2"},
	{"a member of an md array", 0, "\xfc\x4e\x2b\xa9"},
	{"a member of an md array", 4096, "\xfc\x4e\x2b\xa9"},
	{"a bcache device", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"an iso9660 file system", 32769, "CD001"},
	{"a btrfs file system", 65600, "_BHRfS_M"},
}

// zfs keeps a ring of uberblocks in each label, any of which may be the only one written.
const (
	zfsFrom, zfsTo, zfsStep = 128 << 10, 256 << 10, 1 << 10
	zfsMagic                = "\x0c\xb1\xba\x00\x00\x00\x00\x00"
)

// Find says what a disk of that size holds; "" means nothing that is known.
func Find(r io.ReaderAt, size int64) (string, error) {
	head := make([]byte, min(size, zfsTo))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return "", err
	}
	for _, s := range signatures {
		if has(head, s.offset, s.magic) {
			return s.what, nil
		}
	}
	for off := int64(zfsFrom); off < zfsTo; off += zfsStep {
		if has(head, off, zfsMagic) {
			return "a zfs pool", nil
		}
	}
	return findAtEnd(r, size)
}

func has(b []byte, off int64, magic string) bool {
	return off <= int64(len(b)) && bytes.HasPrefix(b[off:], []byte(magic))
}

// findAtEnd looks for what keeps its metadata behind the data: md's old formats and DRBD.
func findAtEnd(r io.ReaderAt, size int64) (string, error) {
	const mdMagic, drbdMagic = 0xa92b4efc, 0x83740267
	var b [4]byte
	for _, off := range []int64{size&^0xffff - 1<<16, (size/512 - 16) &^ 7 * 512} {
		if off < 0 {
			continue
		}
		if _, err := r.ReadAt(b[:], off); err != nil {
			return "", err
		}
		if binary.LittleEndian.Uint32(b[:]) == mdMagic {
			return "a member of an md array", nil
		}
	}
	if off := size&^4095 - 4096 + 60; off >= 60 {
		if _, err := r.ReadAt(b[:], off); err != nil {
			return "", err
		}
		if m := binary.BigEndian.Uint32(b[:]); m >= drbdMagic && m <= drbdMagic+8 {
			return "a DRBD device", nil
		}
	}
	return "", nil
}

// wipeBytes at both ends hold every signature above.
const wipeBytes = 1 << 20

// Device opens a block device for nobody else and says what it holds; the caller closes the file. Errors: it is
// mounted or part of another device.
func Device(path string) (f *os.File, size int64, what string, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, 0, "", fmt.Errorf("%s is in use (mounted, or part of another device)", path)
	}
	if err != nil {
		return nil, 0, "", err
	}
	if size, err = f.Seek(0, io.SeekEnd); err == nil {
		what, err = Find(f, size)
	}
	if err != nil {
		f.Close()
		return nil, 0, "", fmt.Errorf("%s: cannot tell what it holds: %w", path, err)
	}
	return f, size, what, nil
}

// Wipe writes zeroes over both ends of a device of that size, so that nothing takes it for what it was.
func Wipe(f *os.File, size int64) error {
	zero := make([]byte, min(size, wipeBytes))
	for _, off := range []int64{0, size - int64(len(zero))} {
		if _, err := f.WriteAt(zero, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

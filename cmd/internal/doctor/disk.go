package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/ncw/directio"
	"golang.org/x/sys/unix"
)

// disk looks at a container, or at where one is to be made.
func disk(path string) []Finding {
	st, err := os.Stat(path)
	if err == nil && st.Mode().Type() == os.ModeDevice {
		return device(path)
	}
	return directory(folder(path))
}

// fileSystems are those worth a word.
var fileSystems = map[int64]struct {
	name  string
	grade Grade
	mend  string
}{
	0xef53:     {"ext4", OK, ""},
	0x58465342: {"xfs", OK, ""},
	0x9123683e: {"btrfs", Note, "it copies what cawrm writes in place of freed segments: chattr +C on the folder before the container is made"},
	0x01021994: {"tmpfs", Fail, "what is there is gone after a crash: choose a disk"},
	0x794c7630: {"overlay", Note, "a layer of a container image: choose a volume of the host"},
	0x6969:     {"nfs", Note, "locks and syncs over the network: a disk of this machine is better"},
	0x2fc12fc1: {"zfs", Note, "it writes its own log first: a zvol or another file system is faster"},
}

func directory(dir string) []Finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return []Finding{{"disk", Fail, fmt.Sprintf("%s: %v", dir, err), "make the folder, or choose another"}}
	}
	kind, known := fileSystems[int64(fs.Type)]
	if !known {
		kind.name, kind.grade = fmt.Sprintf("a file system of type %#x", fs.Type), Note
		kind.mend = "nobody has tried cawrm on it; ext4 and xfs are"
	}
	free := int64(fs.Bavail) * fs.Bsize
	all := []Finding{{"disk", kind.grade, fmt.Sprintf("%s is on %s, %d MiB free", dir, kind.name, free>>20), kind.mend}}
	if free < 1<<30 {
		all = append(all, Finding{"disk", Note, "less than 1 GiB is free", "a container grows with what is written; a full disk refuses writes"})
	}
	return append(all, try(dir)...)
}

// try makes a file as a container is used, and removes it.
func try(dir string) []Finding {
	path := filepath.Join(dir, fmt.Sprintf(".cawrm-doctor-%d", os.Getpid()))
	f, err := directio.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	direct := Finding{"disk", OK, "O_DIRECT: writes go past the page cache", ""}
	if errors.Is(err, unix.EINVAL) {
		direct = Finding{"disk", Note, "no O_DIRECT: writes go through the page cache", "it works, and takes memory and a copy of each byte more"}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return []Finding{{"disk", Fail, err.Error(), "the daemon's user must be able to write there"}}
	}
	defer os.Remove(path)
	defer f.Close()
	all := []Finding{direct}
	took, err := syncs(f)
	if err != nil {
		return append(all, Finding{"disk", Fail, "write and sync: " + err.Error(), "the disk does not take what it has to"})
	}
	s := Finding{"disk", OK, fmt.Sprintf("a flush takes %v (median of %d)", took.Round(time.Microsecond), tries), ""}
	if took > 5*time.Millisecond {
		s.Grade, s.Mend = Note, "each commit of a database waits so long: a disk with power-loss protection takes a tenth"
	}
	all = append(all, s)
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, chunk); err != nil {
		return append(all, Finding{"disk", Note, "holes cannot be punched: " + err.Error(), "space that a volume frees is used again by it, and not given back to the file system"})
	}
	return append(all, Finding{"disk", OK, "holes can be punched: freed space goes back to the file system", ""})
}

const (
	tries = 21
	chunk = 4096
)

// syncs measures a write of a chunk that is made durable, into space that was written before.
func syncs(f *os.File) (time.Duration, error) {
	b := directio.AlignedBlock(chunk)
	var took []time.Duration
	for i := range tries + 1 {
		start := time.Now()
		if _, err := f.WriteAt(b, 0); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		if i > 0 { // the first one makes the space
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// device looks at a block device by what the kernel says of it; it is not written to.
func device(path string) []Finding {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return []Finding{{"disk", Fail, err.Error(), ""}}
	}
	queue := filepath.Join("/sys/class/block", filepath.Base(real), "queue")
	if word(queue, "rotational") == "" { // a partition: the queue is the disk's
		queue = filepath.Join("/sys/class/block", filepath.Base(real), "..", "queue")
		if link, err := filepath.EvalSymlinks(filepath.Join("/sys/class/block", filepath.Base(real))); err == nil {
			queue = filepath.Join(filepath.Dir(link), "queue")
		}
	}
	var all []Finding
	if size, _ := strconv.Atoi(word(queue, "logical_block_size")); size > chunk {
		all = append(all, Finding{"disk", Fail, fmt.Sprintf("%s has blocks of %d bytes", path, size), "cawrm writes chunks of 4096"})
	}
	cache := Finding{"disk", OK, fmt.Sprintf("%s: write cache: %s", path, word(queue, "write_cache")), ""}
	if word(queue, "write_cache") == "write back" {
		cache.Says += "; the kernel flushes it when cawrm syncs"
	}
	discard := Finding{"disk", OK, path + " takes discards: freed space goes back to it", ""}
	if n := word(queue, "discard_max_bytes"); n == "" || n == "0" {
		discard = Finding{"disk", Note, path + " takes no discards", "freed space is used again by the volume; a thin disk below does not get it back"}
	}
	if word(queue, "rotational") == "1" {
		all = append(all, Finding{"disk", Note, path + " turns", "writes are sequential and fine; random reads take milliseconds"})
	}
	return append(all, cache, discard)
}

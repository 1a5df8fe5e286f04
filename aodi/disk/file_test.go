package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/aodi/disk"

	"github.com/ncw/directio"
	"golang.org/x/sys/unix"
)

const block = 4096

// realDir is a directory on a file system that keeps what it is given on a disk: tmpfs accepts what real ones refuse.
func realDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if !isTmpfs(t, dir) {
		return dir
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if isTmpfs(t, wd) {
		t.Skipf("NOT TESTED: both %s and %s are on tmpfs; set TMPDIR to a directory on a disk", dir, wd)
	}
	if dir, err = os.MkdirTemp(wd, "test-"); err != nil {
		t.Skipf("NOT TESTED: the temporary directory is on tmpfs, and %v; set TMPDIR to a directory on a disk", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func isTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}

func newFile(t *testing.T) (*disk.File, string) {
	t.Helper()
	path := filepath.Join(realDir(t), "container")
	f, err := disk.CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if direct, why := f.Direct(); !direct {
		t.Logf("NOT TESTED with O_DIRECT: %s", why)
	}
	return f, path
}

// pattern is aligned for O_DIRECT; every 512 bytes of it differ.
func pattern(blocks int, seed byte) []byte {
	b := directio.AlignedBlock(blocks * block)
	for i := range b {
		b[i] = seed + byte(i/512)*7 + byte(i)
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFileReadsWhatWasWritten ensures that all ways of writing are seen by all ways of reading, at once.
func TestFileReadsWhatWasWritten(t *testing.T) {
	f, _ := newFile(t)
	must(t, f.Grow(64*block))
	m, unmap, err := f.Map(0, 64*block)
	must(t, err)
	defer unmap()
	writers := []struct {
		name  string
		write func([]byte, int64) error
	}{{"WriteAt", f.WriteAt}, {"WriteCached", f.WriteCached}}
	got := make([]byte, 8*block)
	seed := byte(0)
	for range 3 { // each way after the other, over what the mapping has shown before
		for _, w := range writers {
			seed++
			want := pattern(8, seed)
			must(t, w.write(want, 16*block))
			must(t, f.ReadAt(got, 16*block))
			if !bytes.Equal(got, want) {
				t.Fatalf("%s: ReadAt shows something else", w.name)
			}
			if !bytes.Equal(m[16*block:24*block], want) {
				t.Fatalf("%s: the mapping shows something else", w.name)
			}
			if err := f.TryReadAt(got, 16*block); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%s: TryReadAt shows something else", w.name)
			}
		}
	}
	must(t, f.Sync())
	must(t, f.Zero(16*block, 4*block))
	if !bytes.Equal(m[16*block:20*block], make([]byte, 4*block)) {
		t.Fatal("Zero: the mapping shows something else")
	}
}

// TestFileTryRead ensures that TryReadAt has what is in memory, and neither waits nor lies for what is not.
func TestFileTryRead(t *testing.T) {
	f, path := newFile(t)
	want := pattern(4, 9)
	must(t, f.WriteCached(want, 0))
	must(t, f.Sync())
	got := make([]byte, 4*block)
	if err := f.TryReadAt(got, 0); errors.Is(err, disk.ErrWouldBlock) {
		t.Log("this file system cannot read without waiting (RWF_NOWAIT)")
	} else if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("what was just written through the cache: %v", err)
	}
	must(t, f.TryReadAt(nil, 0))

	other, err := os.Open(path)
	must(t, err)
	defer other.Close()
	must(t, unix.Fadvise(int(other.Fd()), 0, 0, unix.FADV_DONTNEED))
	clear(got)
	switch err := f.TryReadAt(got, 0); {
	case err == nil && !bytes.Equal(got, want):
		t.Fatal("success with other bytes")
	case err != nil && !errors.Is(err, disk.ErrWouldBlock):
		t.Fatal(err)
	}
	if err := f.TryReadAt(got, 2*block); err == nil {
		t.Fatal("a read that goes beyond the end succeeded")
	}
}

// TestOpenDropsCache ensures that an opening reads from the medium what an earlier process has left in the page cache: after
// a sync that failed it is not on the medium.
func TestOpenDropsCache(t *testing.T) {
	f, path := newFile(t)
	must(t, f.WriteCached(pattern(4, 9), 0))
	must(t, f.Sync())
	got := make([]byte, 4*block)
	if err := f.TryReadAt(got, 0); errors.Is(err, disk.ErrWouldBlock) {
		t.Skip("NOT TESTED: this file system cannot read without waiting (RWF_NOWAIT)")
	}
	must(t, f.Close())
	f, err := disk.OpenFile(path, false)
	must(t, err)
	defer f.Close()
	if err := f.TryReadAt(got, 0); !errors.Is(err, disk.ErrWouldBlock) {
		t.Fatalf("it was in the page cache: %v", err)
	}
}

// TestFileIsStrict ensures that what the log must never do is refused where O_DIRECT is in use, as it will be in the field.
func TestFileIsStrict(t *testing.T) {
	f, path := newFile(t)
	if direct, why := f.Direct(); !direct {
		if why == "" {
			t.Fatal("not direct, and no reason given")
		}
		t.Skipf("NOT TESTED: %s", why)
	}
	b := pattern(2, 1)
	for _, row := range []struct {
		name string
		p    []byte
		off  int64
	}{{"offset", b[:block], 100}, {"length", b[:block-100], 0}, {"address", b[1 : block+1], 0}} {
		if err := f.WriteAt(row.p, row.off); !errors.Is(err, unix.EINVAL) {
			t.Errorf("unaligned %s: %v", row.name, err)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("unaligned %s: the error does not name the file: %v", row.name, err)
		}
	}
}

// TestFileLock ensures that one opens for writing at a time, that others may read beside, and that closing lets go.
func TestFileLock(t *testing.T) {
	f, path := newFile(t)
	must(t, f.WriteCached(pattern(1, 1), 0))
	if _, err := disk.OpenFile(path, false); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("second open: %v", err)
	}
	if _, err := disk.CreateFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("create over it: %v", err)
	}
	ro, err := disk.OpenFile(path, true)
	must(t, err)
	if err := ro.WriteCached(pattern(1, 2), 0); err == nil {
		t.Error("a read-only disk was written")
	}
	must(t, ro.Close())
	must(t, f.Close())
	again, err := disk.OpenFile(path, false)
	must(t, err)
	must(t, again.Close())
}

// TestFileRefuses ensures that what is no container is refused with its name.
func TestFileRefuses(t *testing.T) {
	dir := realDir(t)
	full := filepath.Join(dir, "full")
	must(t, os.WriteFile(full, []byte("somebody's work"), 0o600))
	for _, row := range []struct {
		name, path string
		open       func(string) (*disk.File, error)
		want       error
	}{
		{"create over a file with content", full, disk.CreateFile, nil},
		{"create over a directory", dir, disk.CreateFile, nil},
		{"create in a directory that is not there", filepath.Join(dir, "no", "container"), disk.CreateFile, os.ErrNotExist},
		{"create over a character device", "/dev/null", disk.CreateFile, nil},
		{"open what is not there", filepath.Join(dir, "none"), func(p string) (*disk.File, error) { return disk.OpenFile(p, false) }, os.ErrNotExist},
		{"open a directory", dir, func(p string) (*disk.File, error) { return disk.OpenFile(p, false) }, nil},
		{"read a directory", dir, func(p string) (*disk.File, error) { return disk.OpenFile(p, true) }, nil},
	} {
		f, err := row.open(row.path)
		if err == nil {
			f.Close()
			t.Errorf("%s: accepted", row.name)
			continue
		}
		if !strings.Contains(err.Error(), row.path) || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if b, err := os.ReadFile(full); err != nil || string(b) != "somebody's work" {
		t.Errorf("the file that was refused holds %q, %v", b, err)
	}
	empty := filepath.Join(dir, "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	f, err := disk.CreateFile(empty)
	must(t, err)
	must(t, f.Close())
}

// TestFileErrorsSayWhere ensures that an error names the file and the place.
func TestFileErrorsSayWhere(t *testing.T) {
	f, path := newFile(t)
	must(t, f.Grow(3*block))
	for _, off := range []int64{2 * block, 3 * block, 1 << 40} {
		err := f.ReadAt(make([]byte, 2*block), off)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "12288") {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	must(t, f.Close())
	if err := f.Sync(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("sync of a closed file: %v", err)
	}
}

// TestFileSpace ensures that space is held from Reserve to Punch, and not by Grow.
func TestFileSpace(t *testing.T) {
	f, _ := newFile(t)
	const n = 256 * block
	must(t, f.Grow(1<<30))
	must(t, f.Grow(n)) // does not shrink
	if f.Size() != 1<<30 || f.Fixed() {
		t.Fatalf("size %d", f.Size())
	}
	sparse := f.Allocated()
	if sparse >= n {
		t.Fatalf("a file that only grew holds %d bytes", sparse)
	}
	must(t, f.Reserve(n, n))
	held := f.Allocated()
	if held < sparse+n {
		t.Errorf("reserved %d bytes, and it holds %d more", n, held-sparse)
	}
	zero := make([]byte, n)
	got := bytes.Clone(pattern(n/block, 1))
	must(t, f.ReadAt(got, n))
	if !bytes.Equal(got, zero) {
		t.Error("reserved space does not read as zeroes")
	}
	must(t, f.WriteAt(pattern(n/block, 3), n))
	must(t, f.Sync())
	must(t, f.Punch(n, n))
	must(t, f.ReadAt(got, n))
	if f.Allocated() < held-n/2 {
		if !bytes.Equal(got, zero) {
			t.Error("a hole does not read as zeroes")
		}
	} else {
		t.Log("this file system has no holes")
	}
	if f.Size() != 1<<30 {
		t.Errorf("size %d after punching", f.Size())
	}
	// Beyond the end, as the volume makes segments ready.
	must(t, f.Reserve(1<<30, n))
	if f.Size() != 1<<30+n {
		t.Errorf("size %d after reserving beyond the end", f.Size())
	}
	must(t, f.ReadAt(got, 1<<30))
}

// TestFileKeeps ensures that another opening finds what was written.
func TestFileKeeps(t *testing.T) {
	f, path := newFile(t)
	want := pattern(3, 5)
	must(t, f.WriteAt(want, 0))
	must(t, f.WriteCached(want[:block], 2*block))
	must(t, f.Sync())
	must(t, f.Close())
	for _, readOnly := range []bool{true, false} {
		f, err := disk.OpenFile(path, readOnly)
		must(t, err)
		got := make([]byte, 3*block)
		must(t, f.ReadAt(got, 0))
		if !bytes.Equal(got[:2*block], want[:2*block]) || !bytes.Equal(got[2*block:], want[:block]) {
			t.Errorf("read only %v: other bytes", readOnly)
		}
		if f.Name() != path {
			t.Errorf("name %q", f.Name())
		}
		must(t, f.Close())
	}
}

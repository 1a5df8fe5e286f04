package aodi_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// TestFailedSyncIsFinal ensures that after a sync has failed no flush ever succeeds, writes are refused, reads go on,
// and opening again helps.
func TestFailedSyncIsFinal(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<20, 64)
	var broken atomic.Bool
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
		if op == disk.OpSync && broken.Load() {
			return syscall.EIO
		}
		return nil
	}}
	v := open(t, f, quiet)
	if err := v.WriteAt(stamped(1), 0, true); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(stamped(2), chunk, false); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := v.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("flush over a failing sync: %v", err)
	}
	broken.Store(false)
	if err := v.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("flush after a failed sync: %v", err)
	}
	if err := v.WriteAt(stamped(3), 0, false); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write after a failed sync: %v", err)
	}
	b := make([]byte, chunk)
	if err := v.ReadAt(b, 0); err != nil || !bytes.Equal(b, stamped(1)) {
		t.Fatalf("read after a failed sync: %v", err)
	}
	if v.Status().Failed == nil {
		t.Fatal("status does not tell of the failure")
	}
	if err := v.Close(); err == nil {
		t.Fatal("close of a failed volume reports success")
	}
	v = open(t, d, quiet)
	defer v.Close()
	if err := v.ReadAt(b, 0); err != nil || !bytes.Equal(b, stamped(1)) {
		t.Fatalf("flushed data after opening again: %v", err)
	}
}

// TestOutOfSpace ensures that a full disk refuses writes before they are accepted, that all that was accepted can still
// be flushed, read and found after opening again, and that writes succeed when space has come back.
func TestOutOfSpace(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 64<<20, 64)
	var limit atomic.Int64
	limit.Store(6 << 20)
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpReserve && off+int64(n) > limit.Load() {
			return syscall.ENOSPC
		}
		return nil
	}}
	v := open(t, f, aodi.Options{})
	accepted := 0
	for i := 0; ; i++ {
		err := v.WriteAt(stamped(uint64(i+1)), int64(i)*chunk, false)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		accepted++
	}
	if accepted < 500 {
		t.Fatalf("only %d chunks were accepted", accepted)
	}
	if err := v.Flush(); err != nil {
		t.Fatalf("flush on a full disk: %v", err)
	}
	b := make([]byte, chunk)
	readAll := func() {
		t.Helper()
		for i := range accepted {
			if err := v.ReadAt(b, int64(i)*chunk); err != nil || !bytes.Equal(b, stamped(uint64(i+1))) {
				t.Fatalf("chunk %d: %v", i, err)
			}
		}
	}
	readAll()
	limit.Store(1 << 40)
	var err error
	for range 3 { // the try that finds space again was told of the full disk before
		if err = v.WriteAt(stamped(7), 60<<20, false); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("write after space came back: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, d, quiet)
	defer v.Close()
	readAll()
}

// TestCorruptChunkIsRefused ensures that a flipped bit in a chunk is an error that says where, and is counted.
func TestCorruptChunkIsRefused(t *testing.T) {
	d := newDisk(t, 1<<30)
	create(t, d, 1<<20, 64)
	v := open(t, d, quiet)
	marker := bytes.Repeat([]byte("find me!"), chunk/8)
	if err := v.WriteAt(marker, 5*chunk, true); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, chunk)
	for off := int64(format.DataStart) * chunk; ; off += chunk {
		if err := d.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b, marker) {
			b[100] ^= 4
			if err := d.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	v = open(t, d, quiet)
	defer v.Close()
	var bad *aodi.CorruptError
	if err := v.ReadAt(b, 5*chunk); !errors.As(err, &bad) || bad.LBA != 5 || !errors.Is(err, syscall.EIO) {
		t.Fatalf("read of a damaged chunk: %v", err)
	}
	if n := v.Status().ChecksumErrors; n != 1 {
		t.Fatalf("%d checksum errors counted", n)
	}
}

// workDir is a directory on a real file system: what runs on tmpfs says little about O_DIRECT.
func workDir(t *testing.T) string {
	dir, err := os.MkdirTemp(".", "tmp-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestOpenErrors ensures that each container that cannot be opened is refused with its path and with what to do.
func TestOpenErrors(t *testing.T) {
	dir := workDir(t)
	good := filepath.Join(dir, "good")
	if err := aodi.Create(good, aodi.CreateOptions{Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	edit := func(name string, f func(b []byte) []byte) string {
		b, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	v, err := aodi.Open(good, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, says string
	}{
		{"already open", good, "in use by another process"},
		{"does not exist", filepath.Join(dir, "none"), "no such file"},
		{"a directory", dir, "regular file or a block device"},
		{"not a container", edit("garbage", func(b []byte) []byte { copy(b, "garbage!"); return b }), "cawrm create"},
		{"empty", edit("empty", func([]byte) []byte { return nil }), "cawrm create"},
		{"another version", edit("version", func(b []byte) []byte { b[8] = 99; return b }), "another version"},
		{"damaged super chunk", edit("super", func(b []byte) []byte { b[40] ^= 1; return b }), "checksum"},
		{"damaged checkpoints", edit("meta", func(b []byte) []byte { b[chunk+100] ^= 1; b[2*chunk+100] ^= 1; return b }), "no valid checkpoint"},
		{"truncated", edit("short", func(b []byte) []byte { return b[:len(b)/2] }), "truncated"},
		{"truncated behind the super chunk", edit("shorter", func(b []byte) []byte { return b[:5000] }), "truncated"},
		{"truncated in the super chunk", edit("shortest", func(b []byte) []byte { return b[:9] }), "truncated"},
		{"a pipe", pipe, "regular file or a block device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := aodi.Open(c.path, aodi.Options{})
			if err == nil {
				w.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), filepath.Base(c.path)) {
				t.Fatalf("the error %q does not say %q and the path", err, c.says)
			}
		})
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := aodi.Create(pipe, aodi.CreateOptions{Size: 1 << 30}); err == nil || !strings.Contains(err.Error(), "regular file or a block device") {
		t.Fatalf("create in a pipe: %v", err)
	}
	if err := aodi.Create(good, aodi.CreateOptions{Size: 1 << 30}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatalf("create over a container: %v", err)
	}
}

// TestHugeVolumeIsCheap ensures that what a 16 TiB volume costs to create, open and write to at both ends does not depend on
// its size: memory, and the space of its container.
func TestHugeVolumeIsCheap(t *testing.T) {
	path := filepath.Join(workDir(t), "huge")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	if err := aodi.Create(path, aodi.CreateOptions{Size: 16 << 40}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("create and open: %v", time.Since(start))
	runtime.ReadMemStats(&after)
	if used := int64(after.Sys) - int64(before.Sys); used > 64<<20 {
		t.Fatalf("%d bytes of memory", used)
	}
	last := v.Size() - chunk
	for i, off := range []int64{0, v.Size() / 2, last} {
		if err := v.WriteAt(stamped(uint64(i+1)), off, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Trim(0, v.Size(), false); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(stamped(9), last, false); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = aodi.Open(path, aodi.Options{}); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	b := make([]byte, chunk)
	if err := v.ReadAt(b, last); err != nil || !bytes.Equal(b, stamped(9)) {
		t.Fatalf("last chunk: %v", err)
	}
	if s := v.Status(); s.UsedBytes != chunk || s.PhysicalBytes > 64<<20 {
		t.Fatalf("used %d bytes, physical %d", s.UsedBytes, s.PhysicalBytes)
	}
}

package gc_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/gc"
	recovery "cawrm/recover"
)

// TestDeviceGetsSpaceBack ensures that what is discarded goes back through a block device, when it was cleaned: a loop device punches it
// out of its file.
func TestDeviceGetsSpaceBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 96<<20)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--show", "-f", path).CombinedOutput()
	if err != nil {
		t.Skipf("needs root and a loop device: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v: %s", err, out)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	held := func() int64 {
		t.Helper()
		var s syscall.Stat_t
		must(syscall.Stat(path, &s))
		return s.Blocks * 512
	}
	const chunks = 8 << 10 // 32 MiB
	must(aodi.Create(device, aodi.CreateOptions{Size: chunks * chunk, SegmentChunks: 256}))
	v, err := aodi.Open(device, aodi.Options{})
	must(err)
	c := gc.Start(v, gc.Options{})
	for at := range int64(chunks) {
		must(v.WriteAt(stamped(uint64(at+1)), at*chunk, false))
	}
	must(errors.Join(v.Flush(), v.Checkpoint()))
	full := held()
	if full < chunks*chunk {
		t.Fatalf("%d bytes were written, and the device's file holds %d", chunks*chunk, full)
	}
	for at := int64(0); at < chunks; at += 8 { // an eighth of each segment is left: only cleaning brings the rest back
		must(v.Trim((at+1)*chunk, 7*chunk, false))
	}
	must(v.Flush())
	_, err = c.Run(context.Background(), nil)
	must(err)
	if n := held(); n > full/4 {
		t.Errorf("an eighth is left of %d bytes, and the device's file still holds %d", full, n)
	}
	b := make([]byte, chunk)
	for at := range int64(chunks) {
		want := make([]byte, chunk)
		if at%8 == 0 {
			want = stamped(uint64(at + 1))
		}
		if must(v.ReadAt(b, at*chunk)); !bytes.Equal(b, want) {
			t.Fatalf("chunk %d is another one", at)
		}
	}
	c.Close()
	must(v.Close())
	r, err := recovery.CheckFile(device, recovery.CheckOptions{})
	must(err)
	for _, v := range r.Violations {
		t.Errorf("check: %v", v)
	}
}

package disk_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cawrm/aodi/disk"

	"github.com/ncw/directio"
	"golang.org/x/sys/unix"
)

// TestReserveOnFullFileSystem ensures that what has its space can be reserved again where the file system has no more, as opening a
// container does, and nothing else: a full xfs refuses both.
func TestReserveOnFullFileSystem(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
			if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20), os.Mkdir(at, 0o700)); err != nil {
				t.Fatal(err)
			}
			for _, c := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, at}} {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Skipf("needs root, mkfs.%s and a loop device: %v: %v: %s", kind, c, err, out)
				}
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", "-l", at).CombinedOutput(); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			})
			reserveWhenFull(t, at)
		})
	}
}

func reserveWhenFull(t *testing.T, at string) {
	const n = 8 << 20
	f, err := disk.CreateFile(filepath.Join(at, "container"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Reserve(0, n); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(directio.AlignedBlock(block), n/2); err != nil { // written or not makes no difference
		t.Fatal(err)
	}
	other, err := os.Create(filepath.Join(at, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for b := make([]byte, 1<<20); err == nil && len(b) > 0; {
		if _, err = other.Write(b); errors.Is(err, unix.ENOSPC) {
			b, err = b[:len(b)/2], nil
		}
	}
	if err := errors.Join(err, other.Sync()); err != nil {
		t.Fatal(err)
	}
	if err := f.Reserve(0, n); err != nil {
		t.Errorf("what has its space: %v", err)
	}
	if err := f.Reserve(n/2, n); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("what has only half of it: %v", err)
	}
}

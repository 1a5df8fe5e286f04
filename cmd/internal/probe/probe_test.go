package probe_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cawrm/cmd/internal/probe"
)

const size = 64 << 20

func TestFind(t *testing.T) {
	for _, c := range []struct {
		want  string
		off   int64
		magic string
	}{
		{"", 0, ""},
		{"a cawrm container", 0, "CAWRMVOL"},
		{"an ext2, ext3 or ext4 file system", 1080, "\x53\xef"},
		{"a zfs pool", 200 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
		{"a member of an md array", size - 1<<16, "\xfc\x4e\x2b\xa9"},
		{"a member of an md array", size - 8192, "\xfc\x4e\x2b\xa9"},
		{"a DRBD device", size - 4096 + 60, "\x83\x74\x02\x6b"},
		{"", 2048, "XFSB"},
	} {
		b := make([]byte, size)
		copy(b[c.off:], c.magic)
		if got, err := probe.Find(bytes.NewReader(b), size); err != nil || got != c.want {
			t.Errorf("%q at %d: %q, %v; want %q", c.magic, c.off, got, err, c.want)
		}
	}
}

func TestFindSmall(t *testing.T) {
	for _, n := range []int64{0, 1, 511, 512, 4096, 4100, 1 << 16} {
		if got, err := probe.Find(bytes.NewReader(make([]byte, n)), n); err != nil || got != "" {
			t.Errorf("%d bytes: %q, %v", n, got, err)
		}
	}
}

// TestMadeByOthers asks the programs that make signatures, where they are installed.
func TestMadeByOthers(t *testing.T) {
	for _, c := range []struct {
		want string
		make []string
	}{
		{"an ext2, ext3 or ext4 file system", []string{"mkfs.ext4", "-q", "-F"}},
		{"an xfs file system", []string{"mkfs.xfs", "-q", "-f"}},
		{"a btrfs file system", []string{"mkfs.btrfs", "-q", "-f"}},
		{"a swap area", []string{"mkswap"}},
		{"a fat file system", []string{"mkfs.vfat"}},
	} {
		t.Run(c.make[0], func(t *testing.T) {
			program, err := exec.LookPath(c.make[0])
			if err != nil {
				t.Skip(err)
			}
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 512<<20); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(program, append(c.make[1:], path)...).CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, out)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := probe.Find(f, 512<<20); err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if err := probe.Wipe(f, 512<<20); err != nil {
				t.Fatal(err)
			}
			if got, err := probe.Find(f, 512<<20); err != nil || got != "" {
				t.Errorf("wiped, it holds %q, %v", got, err)
			}
		})
	}
}

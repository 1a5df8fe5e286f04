package nbdkernel

import (
	"context"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEncode compares with what the driver's policy wants, byte by byte (little-endian machine).
func TestEncode(t *testing.T) {
	r := Request{
		Index: 3, Size: 1 << 30, BlockSize: 4096, ServerFlags: 0x16d, Timeout: 1500 * time.Millisecond,
		DeadTimeout: time.Minute, Backend: "id", Sockets: []int{7, 9},
	}
	got, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	want := "08000100" + "03000000" + // index
		"0c000200" + "0000004000000000" + // size
		"0c000300" + "0010000000000000" + // block size
		"0c000500" + "6d01000000000000" + // server flags
		"0c000600" + "0000000000000000" + // client flags
		"0c000400" + "0200000000000000" + // timeout
		"0c000800" + "3c00000000000000" + // dead connection timeout
		"07000a00" + "69640000" + // backend
		"1c000780" + "0c000180" + "08000100" + "07000000" + "0c000180" + "08000100" + "09000000" // sockets
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	r = Request{Index: AnyDevice, Size: 1 << 30, BlockSize: 512, Sockets: []int{7}}
	if got, err = r.encode(); err != nil || strings.HasPrefix(hex.EncodeToString(got), "08000100") {
		t.Errorf("%x, %v: no index must be sent for any device", got, err)
	}
}

// TestEncodeGrow compares in the same way: nothing but the size is said, so that the rest stays.
func TestEncodeGrow(t *testing.T) {
	got, err := encodeGrow(3, "id", 1<<31)
	if want := "08000100" + "03000000" + "0c000200" + "0000008000000000" + "07000a00" + "69640000"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got  %x, %v\nwant %s", got, err, want)
	}
}

func TestDecodeDevices(t *testing.T) {
	// NBD_ATTR_DEVICE_LIST with nbd0 connected and nbd1 not, as the driver writes it: without the nested flag.
	data, _ := hex.DecodeString("2c000900" +
		"14000100" + "08000100" + "00000000" + "05000200" + "01000000" +
		"14000100" + "08000100" + "01000000" + "05000200" + "00000000")
	got := map[int]bool{}
	if err := decodeDevices(data, got); err != nil || !maps.Equal(got, map[int]bool{0: true, 1: false}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]int{"/dev/nbd0": 0, "/dev/nbd12": 12, "nbd3": 3} {
		if d, err := ParseDevice(text); err != nil || d.Index != want || d.Path() != "/dev/nbd"+strings.TrimLeft(text, "/devnb") {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "/dev/sda", "/dev/nbd", "/dev/nbd0p1", "/dev/nbd-1", "/dev/nbd01", "/dev/nbd99999", "/tmp/nbd0"} {
		if d, err := ParseDevice(text); err == nil {
			t.Errorf("%q is taken for %v", text, d)
		}
	}
}

func TestSysfs(t *testing.T) {
	root := t.TempDir()
	write := func(file, text string) {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("/sys/block/nbd0/size", "0\n")
	write("/sys/block/nbd1/size", "2048\n")
	write("/sys/block/nbd1/dev", "43:32\n")
	write("/sys/block/nbd1/pid", "77\n")
	write("/sys/block/nbd1/backend", "cawrm-id\n")
	write("/sys/block/nbd1/nbd1p2/dev", "43:34\n")
	write("/sys/block/nbd1/nbd1p2/holders/dm-0/x", "")
	write("/proc/self/mountinfo", `21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 43:34 / /mnt/my\040disk rw,relatime shared:1 - ext4 /dev/nbd1p2 rw
31 21 0:55 / /btrfs rw shared:2 master:3 - btrfs /dev/nbd1 rw
32 21 43:320 / /other rw - ext4 /dev/nbd10 rw
`)
	write("/proc/swaps", "Filename Type Size Used Priority\n/dev/nbd1 partition 100 0 -2\n")

	free, used, none := Device{0, root}, Device{1, root}, Device{2, root}
	if !free.Exists() || free.Connected() || free.Size() != 0 || free.Users() != nil {
		t.Errorf("nbd0: %v %v %v %v", free.Exists(), free.Connected(), free.Size(), free.Users())
	}
	if none.Exists() || none.Connected() || none.Size() != 0 {
		t.Error("nbd2 exists")
	}
	if !used.Connected() || used.Size() != 1<<20 || used.Backend() != "cawrm-id" {
		t.Errorf("nbd1: %v %v %q", used.Connected(), used.Size(), used.Backend())
	}
	want := []string{"/dev/nbd1p2 is part of /dev/dm-0", "mounted on /mnt/my disk", "mounted on /btrfs", "/dev/nbd1 is swap"}
	if got := used.Users(); !slices.Equal(got, want) {
		t.Errorf("users %q\nwant  %q", got, want)
	}

	if got := Attached(root, "cawrm-id"); len(got) != 1 || got[0] != used || got[0].ReadOnly() || Attached(root, "other") != nil || Attached(root, "") != nil {
		t.Errorf("attached: %v", got)
	}
	write("/sys/block/nbd1/ro", "1\n")
	if !used.ReadOnly() {
		t.Error("nbd1 is said to take writes")
	}

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := used.WaitGone(ended); err == nil {
		t.Error("nbd1 is gone")
	}
	if err := free.WaitGone(ended); err != nil {
		t.Error(err)
	}
	write("/dev/nbd1", "")
	if err := used.WaitSize(ended, 1<<20); err != nil {
		t.Error(err)
	}
	if err := used.WaitSize(ended, 1<<21); err == nil || !strings.Contains(err.Error(), "1048576 bytes and should have 2097152") {
		t.Error(err)
	}
}

// TestLicence keeps a GPL-3.0 package out of the binary: it comes with go-nbd's own client.
func TestLicence(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skip("no go command here: ", err)
	}
	if strings.Contains(string(out), "go-nbd/pkg/client") {
		t.Error("go-nbd/pkg/client is imported")
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestNbdinfo(t *testing.T) {
	need(t, "nbdinfo")
	s := volume(t, "300M")
	var info struct {
		Protocol string
		Exports  []struct {
			ExportName string `json:"export-name"`
			Size       int64  `json:"export-size"`
			ReadOnly   bool   `json:"is_read_only"`
			MultiConn  bool   `json:"can_multi_conn"`
			Flush      bool   `json:"can_flush"`
			FUA        bool   `json:"can_fua"`
			Trim       bool   `json:"can_trim"`
			Zero       bool   `json:"can_zero"`
		}
	}
	ok(t, json.Unmarshal([]byte(run(t, "nbdinfo", "--json", s.URI())), &info))
	if len(info.Exports) != 1 {
		t.Fatalf("%d exports, want 1", len(info.Exports))
	}
	e := info.Exports[0]
	if e.ExportName != "vol" || e.Size != 300<<20 || e.ReadOnly {
		t.Errorf("the export is %+v, want 300 MiB, writable, named vol", e)
	}
	if !e.MultiConn || !e.Flush || !e.FUA || !e.Trim || !e.Zero {
		t.Errorf("the export lacks an ability: %+v", e)
	}
	if out := run(t, "nbdinfo", "--list", "nbd://"+s.NBD); !strings.Contains(out, `export="vol"`) {
		t.Errorf("the list does not name vol:\n%s", out)
	}
	// The empty name is the only volume.
	if out := run(t, "nbdinfo", "--size", "nbd://"+s.NBD); strings.TrimSpace(out) != fmt.Sprint(300<<20) {
		t.Errorf("the size of the default export is %s", out)
	}
}

func TestNbdcopyBothWays(t *testing.T) {
	need(t, "nbdcopy")
	s := volume(t, "64M")
	data := noise(64<<20, 1)
	clear(data[10<<20 : 20<<20]) // a hole
	in := file(t, "in", data)
	run(t, "nbdcopy", "--flush", in, s.URI())
	out := filepath.Join(t.TempDir(), "out")
	run(t, "nbdcopy", s.URI(), out)
	sameFile(t, out, data)

	again := filepath.Join(t.TempDir(), "again")
	run(t, "nbdcopy", "--connections=1", "--requests=64", "--request-size=33554432", s.URI(), again)
	sameFile(t, again, data)
}

func TestNbdcopyFromSiteToSite(t *testing.T) {
	need(t, "nbdcopy")
	a, b := volume(t, "64M"), volume(t, "64M")
	run(t, "nbdcopy", "--flush", file(t, "in", noise(64<<20, 2)), a.URI())
	run(t, "nbdcopy", "--flush", a.URI(), b.URI())
	if x, y := checksum(t, a), checksum(t, b); x != y {
		t.Errorf("the copy has sha256 %s, the original %s", y, x)
	}
}

// The script is python, run by libnbd's shell: what no tool sends by itself.
const nbdshScript = `
size = h.get_size()
def expect(got, want, what):
    if got != want:
        raise SystemExit("%s: got %r..., want %r..." % (what, got[:16], want[:16]))
def refused(f, what):
    try:
        f()
    except nbd.Error:
        return
    raise SystemExit(what + " was not refused")

h.pwrite(b"a" * 8192, 0)
h.pwrite(b"b" * 100, 4000)                        # crosses a chunk, aligned to nothing
expect(bytes(h.pread(8192, 0)), b"a" * 4000 + b"b" * 100 + b"a" * 4092, "an unaligned write")
h.pwrite(b"c" * 4096, size - 4096, nbd.CMD_FLAG_FUA)
expect(bytes(h.pread(4096, size - 4096)), b"c" * 4096, "the last chunk")
h.zero(100, 50)
expect(bytes(h.pread(200, 0)), b"a" * 50 + b"\0" * 100 + b"a" * 50, "an unaligned zeroing")
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
expect(bytes(h.pread(4096, 4096)), b"\0" * 4096, "zeroes without a hole")
h.pwrite(b"d" * 16384, 65536)
h.trim(8192, 65536 + 4096)
expect(bytes(h.pread(16384, 65536)), b"d" * 4096 + b"\0" * 8192 + b"d" * 4096, "a trim")
h.flush()
h.cache(1 << 20, 0)

extents = []
h.block_status(1 << 20, 1 << 20, lambda ctx, off, e, err: extents.extend(e))
expect(extents[1] & nbd.STATE_ZERO, nbd.STATE_ZERO, "the state of what was never written")

refused(lambda: h.pread(4096, size - 100), "a read beyond the end")
h.set_strict_mode(0)
refused(lambda: h.pwrite(b"x" * 4096, size - 100), "a write beyond the end")
refused(lambda: h.zero(4096, size), "a zeroing beyond the end")
expect(bytes(h.pread(4096, size - 4096)), b"c" * 4096, "the last chunk after refusals")

# Writes and reads all outstanding at once.
answered = 0
def count(err):
    global answered
    answered += 1
    return 1
for i in range(200):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i] * 5000)), (1 << 20) + i * 5000, count)
while answered < 200:
    h.poll(-1)
for i in range(200):
    expect(bytes(h.pread(5000, (1 << 20) + i * 5000)), bytes([i] * 5000), "write %d of 200" % i)
print("all as expected")
`

func TestNbdsh(t *testing.T) {
	need(t, "nbdsh")
	s := volume(t, "64M")
	connect := fmt.Sprintf("h.add_meta_context('base:allocation')\nh.connect_uri(%q)\n", s.URI())
	script := file(t, "script.py", []byte(connect+nbdshScript))
	if out := run(t, "nbdsh", "-c", fmt.Sprintf("exec(open(%q).read())", script)); !strings.Contains(out, "all as expected") {
		t.Errorf("nbdsh ended early:\n%s", out)
	}
}

func TestQemuImg(t *testing.T) {
	need(t, "qemu-img")
	s := volume(t, "64M")
	data := noise(64<<20, 3)
	clear(data[:1<<20])
	clear(data[40<<20:])
	raw := file(t, "in.raw", data)
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, s.URI())
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, s.URI())
	qcow := filepath.Join(t.TempDir(), "out.qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", s.URI(), qcow)
	run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow, s.URI())
	var extents []struct {
		Start, Length int64
		Data          bool
	}
	ok(t, json.Unmarshal([]byte(run(t, "qemu-img", "map", "--output=json", "-f", "raw", s.URI())), &extents))
	for _, e := range extents {
		if e.Data && e.Start >= 40<<20 {
			t.Errorf("%d bytes at %d are said to be data, nothing but zeroes was written there", e.Length, e.Start)
		}
	}
}

func TestQemuIO(t *testing.T) {
	need(t, "qemu-io")
	s := volume(t, "64M")
	commands := []string{
		"write -P 0x11 0 1M",
		"write -P 0x22 512 512",
		"write -f -P 0x33 2M 64k",
		"write -z 3M 1M",
		"write -z -u 4M 1M",
		"discard 256k 256k",
		"flush",
		"aio_write -P 0x44 8M 4M",
		"aio_write -P 0x55 12M 4M",
		"aio_flush",
		"read -P 0x11 0 512",
		"read -P 0x22 512 512",
		"read -P 0x11 1k 255k",
		"read -P 0 256k 256k",
		"read -P 0x11 512k 512k",
		"read -P 0x33 2M 64k",
		"read -P 0 3M 2M",
		"read -P 0x44 8M 4M",
		"read -P 0x55 12M 4M",
	}
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := run(t, "qemu-io", append(args, s.URI())...)
	if strings.Contains(out, "verification failed") || strings.Contains(out, "error") {
		t.Errorf("qemu-io:\n%s", out)
	}
}

func TestFioVerifies(t *testing.T) {
	need(t, "fio")
	s := volume(t, "256M")
	job := []string{
		"--name=verify", "--ioengine=nbd", "--uri=" + s.URI(), "--rw=randwrite", "--bsrange=4k-64k",
		"--iodepth=32", "--size=256m", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--group_reporting",
		"--randseed=7",
	}
	if out := run(t, "fio", append(job, "--do_verify=1")...); !strings.Contains(out, "err= 0") {
		t.Errorf("fio:\n%s", out)
	}
	// The same content is there after the daemon was killed.
	s.Kill()
	ok(t, s.Start(t.Context()))
	if out := run(t, "fio", append(job, "--verify_only")...); !strings.Contains(out, "err= 0") {
		t.Errorf("fio after a restart:\n%s", out)
	}
	ok(t, s.Stop())
	ok(t, s.Check())
}

func TestUnixSocket(t *testing.T) {
	need(t, "nbdinfo")
	s := newSite(t, "daemon")
	s.NBD = "unix:" + filepath.Join(filepath.Dir(s.Path), "nbd.sock")
	ok(t, s.Create("16M"))
	ok(t, s.Start(t.Context()))
	if out := run(t, "nbdinfo", "--size", s.URI()); strings.TrimSpace(out) != fmt.Sprint(16<<20) {
		t.Errorf("size %s", out)
	}
}

package nbdsrv_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

// tool is the path of a third-party client, or a skipped test.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	t.Skipf("NOT TESTED: %s is not installed", name)
	return ""
}

// run runs a tool to its end and returns what it said.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool(t, name), args...)
	cmd.Dir = t.TempDir()
	// nbdsh runs the first python3 of the path, and the one with libnbd is the system's.
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:/usr/sbin:"+os.Getenv("PATH"))
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// toolServer serves a sparse volume on a unix socket and on TCP.
func toolServer(t *testing.T, size int64) (h *harness, d *memDev, unixURI, tcpURI string) {
	h, d = one(t, size)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no TCP here: ", err)
	}
	h.listen(l)
	return h, d, "nbd+unix:///x?socket=" + h.addr, fmt.Sprintf("nbd://%s/x", l.Addr())
}

func TestNbdinfo(t *testing.T) {
	tool(t, "nbdinfo")
	h, d, u, tcp := toolServer(t, 1<<30)
	d.write(pattern(1, 64<<10), 1<<20)
	for _, uri := range []string{u, tcp} {
		var info struct {
			Exports []map[string]any
		}
		if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", uri)), &info); err != nil {
			t.Fatal(err)
		}
		for k, want := range map[string]any{
			"export-name": "x", "export-size": float64(1 << 30), "can_cache": true, "can_df": true,
			"can_fast_zero": true, "can_flush": true, "can_fua": true, "can_multi_conn": true,
			"can_trim": true, "can_zero": true, "is_read_only": false, "is_rotational": false,
			"block_size_minimum": float64(1), "block_size_preferred": float64(4096),
			"block_size_maximum": float64(32 << 20),
		} {
			if got := info.Exports[0][k]; got != want {
				t.Errorf("%s: %v, want %v", k, got, want)
			}
		}
		got := strings.Join(strings.Fields(run(t, "nbdinfo", "--map", uri)), " ")
		if got != "0 1048576 3 hole,zero 1048576 65536 0 data 1114112 1072627712 3 hole,zero" {
			t.Errorf("map: %s", got)
		}
	}
	if err := h.s.AddExport(nbdsrv.Export{Name: "second", Description: "for people", Device: newMemDev(mib)}); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "nbdinfo", "--list", strings.Replace(u, "/x?", "/?", 1)); !strings.Contains(got, `export="x"`) || !strings.Contains(got, "for people") {
		t.Error(got)
	}
}

func TestNbdcopy(t *testing.T) {
	tool(t, "nbdcopy")
	h, d, u, tcp := toolServer(t, 64*mib)
	if err := h.s.AddExport(nbdsrv.Export{Name: "y", Device: newMemDev(64 * mib), MultiConn: true}); err != nil {
		t.Fatal(err)
	}
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	content := make([]byte, 64*mib) // half of it holes
	rng := rand.New(rand.NewPCG(1, 1))
	for i := 0; i < len(content); i += 2 * mib {
		copy(content[i:], pattern(rng.IntN(1000), mib-rng.IntN(5000)))
	}
	if err := os.WriteFile(in, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--flush"}, {"--allocated"}, {"--request-size=1048576"}, {"--connections=1", "--requests=8"}} {
		for _, uri := range []string{u, tcp} {
			run(t, "nbdcopy", append(args, in, uri)...)
			if got := make([]byte, len(content)); !bytes.Equal(d.readAll(got), content) {
				t.Fatalf("%v: differs in the volume", args)
			}
			run(t, "nbdcopy", append(args, uri, out)...)
			if got, _ := os.ReadFile(out); !bytes.Equal(got, content) {
				t.Fatalf("%v: differs in the file", args)
			}
		}
	}
	run(t, "nbdcopy", u, strings.Replace(u, "/x?", "/y?", 1))
	if c := h.openExport(compact, "y"); !bytes.Equal(c.read(0, 32*mib), content[:32*mib]) {
		t.Fatal("server to server")
	}
}

const nbdshScript = `
import nbd, errno
assert h.get_protocol() == "newstyle-fixed"
assert h.get_structured_replies_negotiated() == STRUCTURED
assert h.get_size() == 1024*1024*1024
if STRUCTURED:
    assert h.can_meta_context("base:allocation") and h.can_df()
data = bytes((i * 7 + 3) & 255 for i in range(100000))
h.pwrite(data, 12345)
assert h.pread(len(data), 12345) == data
h.pwrite(data[:511], 1, nbd.CMD_FLAG_FUA)
assert h.pread(511, 1) == data[:511]
h.flush()
h.trim(1 << 20, 0, nbd.CMD_FLAG_FUA)
h.pwrite(data, 1 << 20)
h.zero(50000, (1 << 20) + 17)
assert h.pread(len(data), 1 << 20) == data[:17] + bytes(50000) + data[50017:]
h.zero(4096, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
try:
    h.zero(4096, 1 << 20, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    assert False
except nbd.Error as e:
    assert e.errno == "ENOTSUP", e.errno
h.cache(1 << 20, 0)
h.set_strict_mode(0)
for what, f in (("EINVAL", lambda: h.pread(2, (1 << 30) - 1)), ("ENOSPC", lambda: h.pwrite(b"ab", (1 << 30) - 1)),
                ("EINVAL", lambda: h.trim(4096, 1 << 30)), ("ENOSPC", lambda: h.zero(4096, 1 << 30))):
    try:
        f()
        assert False
    except nbd.Error as e:
        assert e.errno == what, e.errno
if STRUCTURED:
    found = []
    def collect(ctx, off, entries, err):
        found.extend(entries)
    h.block_status(1 << 29, 0, collect)
    assert sum(found[0::2]) == 1 << 29, found
    found.clear()
    h.block_status(1 << 29, 1 << 29, collect, nbd.CMD_FLAG_REQ_ONE)
    assert found == [1 << 29, 3], found
    chunks = []
    def chunk(buf, off, status, err):
        chunks.append(status)
    h.pread_structured(1 << 20, 1 << 29, chunk)
    assert chunks == [nbd.READ_HOLE], chunks
    chunks.clear()
    h.pread_structured(1 << 20, 1 << 29, chunk, nbd.CMD_FLAG_DF)
    assert chunks == [nbd.READ_DATA], chunks
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 4096), i * 4096) for i in range(128)]
while not all(h.aio_command_completed(c) for c in [cookies[-1]]):
    h.poll(-1)
while h.aio_in_flight() > 0:
    h.poll(-1)
for i in range(128):
    assert h.pread(4096, i * 4096) == bytes([i]) * 4096
h.shutdown()
print("good")
`

func TestNbdsh(t *testing.T) {
	tool(t, "nbdsh")
	_, _, u, tcp := toolServer(t, 1<<30)
	for _, uri := range []string{u, tcp} {
		for _, structured := range []string{"True", "False"} {
			out := run(t, "nbdsh", "-c", "STRUCTURED = "+structured, "-c", "h.set_request_structured_replies(STRUCTURED)",
				"-c", "h.add_meta_context('base:allocation')", "-c", "h.connect_uri('"+uri+"')", "-c", nbdshScript)
			if !strings.Contains(out, "good") {
				t.Error(out)
			}
		}
	}
}

func TestNbdshOptionMode(t *testing.T) {
	tool(t, "nbdsh")
	_, _, u, _ := toolServer(t, mib)
	run(t, "nbdsh", "-c", `
h.set_opt_mode(True)
h.connect_uri("`+u+`")
names = []
h.opt_list(lambda name, desc: names.append(name))
assert names == ["x"], names
h.opt_info()
assert h.get_size() == 1 << 20
h.set_export_name("nosuch")
try:
    h.opt_info()
    assert False
except nbd.Error:
    pass
ctx = []
h.set_export_name("x")
h.opt_list_meta_context(lambda n: ctx.append(n))
assert ctx == ["base:allocation"], ctx
h.opt_go()
h.pwrite(b"x", 0)
`)
}

func TestNbdTLSTools(t *testing.T) {
	tool(t, "nbdinfo")
	id := newIdentity(t)
	h := serve(t, nbdsrv.Config{TLS: id.server(), RequireTLS: true}, two()...)
	uri := "nbds+unix://localhost/alpha?socket=" + h.addr + "&tls-certificates=" + id.dir
	out, err := exec.Command("nbdinfo", uri).CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("TLS")) && bytes.Contains(out, []byte("not")) {
		t.Skipf("NOT TESTED: nbdinfo speaks no TLS here: %s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("with TLS")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("nbdinfo", "nbd+unix:///alpha?socket="+h.addr).CombinedOutput(); err == nil {
		t.Fatalf("in the clear: %s", out)
	}
}

func TestQemuIO(t *testing.T) {
	tool(t, "qemu-io")
	_, _, u, tcp := toolServer(t, 256*mib)
	for _, uri := range []string{u, tcp} {
		var args []string
		for _, c := range []string{
			"write -P 0x11 0 8M", "read -P 0x11 0 8M", "write -P 0x22 1234 4321", "read -P 0x22 1234 4321",
			"read -P 0x11 0 1234", "write -f -P 0x33 1M 64k", "discard 2M 1M", "read -P 0 2M 1M",
			"write -z 4M 1M", "read -P 0 4M 1M", "write -z -u 5M 100k", "read -P 0 5M 100k", "write -z -u -n 6M 64k",
			"read -P 0x11 7M 1M", "aio_write -P 0x44 16M 2M", "aio_write -P 0x45 20M 2M", "aio_flush",
			"read -P 0x44 16M 2M", "read -P 0x45 20M 2M", "flush", "write -z 32M 200M", "map",
		} {
			args = append(args, "-c", c)
		}
		out := run(t, "qemu-io", append(args, "-f", "raw", uri)...)
		if regexp.MustCompile(`(?i)fail|error|mismatch|invalid`).MatchString(out) {
			t.Error(out)
		}
	}
}

func TestQemuImg(t *testing.T) {
	tool(t, "qemu-img")
	_, d, u, tcp := toolServer(t, 64*mib)
	in, back := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "back")
	content := make([]byte, 64*mib)
	for i := 0; i < len(content); i += 8 * mib {
		copy(content[i:], pattern(i>>20, 3*mib+777))
	}
	if err := os.WriteFile(in, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{u, tcp} {
		run(t, "qemu-img", "info", uri)
		run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", in, uri)
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri)
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, back)
		run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", back, uri)
		run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)
		if got := make([]byte, len(content)); !bytes.Equal(d.readAll(got), content) {
			t.Fatal("content")
		}
		d.zero(0, 64*mib, true)
	}
}

func TestFioVerify(t *testing.T) {
	fio := tool(t, "fio")
	if out, _ := exec.Command(fio, "--enghelp").Output(); !bytes.Contains(out, []byte("nbd")) {
		t.Skip("NOT TESTED: fio without its nbd engine")
	}
	_, _, u, tcp := toolServer(t, 64*mib)
	for i, uri := range []string{u, tcp} {
		for _, bs := range []string{"4k-4k", "512-128k", "1m-1m"} {
			run(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bsrange="+bs, "--bs_unaligned=0",
				"--iodepth=32", "--size=64m", "--io_size=64m", "--verify=crc32c", "--verify_fatal=1", "--fsync=64",
				fmt.Sprint("--randseed=", i+7))
		}
	}
}

func TestNbdClientList(t *testing.T) {
	tool(t, "nbd-client")
	h, _ := one(t, mib)
	out := run(t, "nbd-client", "-l", "-unix", h.addr)
	if !regexp.MustCompile(`(?m)^x`).MatchString(out) {
		t.Error(out)
	}
}

// TestNbdkitProxy puts nbdkit's nbd plugin, a client of its own, between libnbd and the server.
func TestNbdkitProxy(t *testing.T) {
	tool(t, "nbdkit")
	tool(t, "nbdcopy")
	h, d, _, _ := toolServer(t, 16*mib)
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, pattern(1, 16*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdkit", "-U", "-", "nbd", "socket="+h.addr, "export=x", "shared=true", "--run", "nbdcopy "+in+" $uri && nbdinfo $uri")
	if got := make([]byte, 16*mib); !bytes.Equal(d.readAll(got), pattern(1, 16*mib)) {
		t.Fatal("content")
	}
}

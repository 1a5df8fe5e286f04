package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
)

// TestResize ensures that a volume grows while it is used, and its mirror with it; that clients see the new size when they connect
// again, at both sites; and that a size that is smaller is refused.
func TestResize(t *testing.T) {
	dir := t.TempDir()
	nbdA, nbdB := filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")
	disk, mirror := create(t, filepath.Join(dir, "disk"), "--size", "16M"), create(t, filepath.Join(dir, "copy"), "--mirror")
	b := serve(t, mirror, "--name", "db", "--peer", "127.0.0.1:0", "--nbd", "unix:"+nbdB)
	a := serve(t, disk, "--name", "db", "--nbd", "unix:"+nbdA, "--mirror", "m=cawrm://"+b.volume().Peer[0]+"/db")
	client := dialNBD(t, nbdA, "db")
	client.write(0, bytes.Repeat([]byte{1}, 4096))
	a.command("snapshot", "create", "db@small").want(t, 0, "")

	a.command("resize", "db", "--size", "2G").want(t, 0, "db: size 2.0 GiB, before 16.0 MiB")
	at := uint64(2<<30 - 4096)
	client.write(4096, bytes.Repeat([]byte{3}, 4096))    // who is connected goes on
	client.write(at-4096, bytes.Repeat([]byte{2}, 4096)) // and may know it
	client.Close()
	client = dialNBD(t, nbdA, "db")
	client.write(at, bytes.Repeat([]byte{2}, 4096))
	client.flush()
	a.until("synced", func(v control.Volume) bool { return v.Mirrors[0].State == "synced" })
	for _, s := range []struct{ socket, name, size string }{
		{nbdA, "db", "2147483648"}, {nbdB, "db", "2147483648"}, {nbdA, "db@small", "16777216"}, {nbdB, "db@small", "16777216"},
	} {
		wantSize(t, "nbd+unix:///"+s.name+"?socket="+s.socket, s.size)
	}
	got := make([]byte, 4096)
	again := dialNBD(t, nbdB, "db")
	if again.read(at, got); !bytes.Equal(got, bytes.Repeat([]byte{2}, 4096)) {
		t.Error("the mirror's last chunk is another one")
	}
	again.Close()
	for _, c := range []struct {
		s    *site
		code int
		args []string
		want string
	}{
		{a, 1, []string{"db", "--size", "1G"}, "a volume is not made smaller: it has 2147483648 bytes"},
		{b, 1, []string{"db", "--size", "4G"}, "takes its size from its source"},
		{a, 1, []string{"other", "--size", "4G"}, `no volume "other"`},
		{a, 2, []string{"db"}, "give --size"},
		{a, 2, []string{"db", "--size", "1000"}, "not a multiple of 4096"},
		{a, 2, []string{"db", "--size", "17T"}, "at most 16T"},
		{a, 2, []string{"db", "--capacity", "0"}, "or none"},
		{a, 2, []string{"db", "--capacity", "much"}, "much"},
	} {
		c.s.command(append([]string{"resize"}, c.args...)...).want(t, c.code, c.want)
	}
	client.Close()
	a.stop()
	b.stop()
	for _, path := range []string{disk, mirror} {
		runProgram(t, "check", path).want(t, 0, "OK")
	}
}

// wantSize asks libnbd and qemu, where they are there.
func wantSize(t *testing.T, uri, size string) {
	t.Helper()
	for _, c := range [][]string{{"nbdinfo", "--size", uri}, {"qemu-img", "info", "--output=json", uri}} {
		if _, err := exec.LookPath(c[0]); err != nil {
			t.Logf("SKIPPED: %s is missing", c[0])
			continue
		}
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), size) {
			t.Errorf("%s: %v, want %s\n%s", strings.Join(c, " "), err, size, out)
		}
	}
}

// TestResizeCapacity ensures that a container is bounded to what is live and a little, after cleaning it if need be, not to less; and
// that the bound is lifted again.
func TestResizeCapacity(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "nbd")
	disk := create(t, filepath.Join(dir, "disk"), "--size", "128M", "--capacity", "256M")
	s := serve(t, disk, "--name", "db", "--nbd", "unix:"+socket)
	client := dialNBD(t, socket, "db")
	data := func(i uint64) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8), 3, 4}, 16<<10) }
	for i := range uint64(2000) {
		client.write(i%1000*65536, data(i))
	}
	client.flush()
	s.command("resize", "db", "--capacity", "32M").want(t, 1, "more than that is live: 65536000 bytes are")
	r := s.command("resize", "db", "--capacity", "96M", "--json")
	var a control.Resized
	if err := json.Unmarshal([]byte(r.out), &a); err != nil || r.code != 0 || a.Capacity != 96<<20 || a.CapacityBefore != 256<<20 || a.Size != 128<<20 ||
		a.LeastCapacity <= 65536000 || a.LeastCapacity > 96<<20 {
		t.Errorf("%v: code %d, %+v, %s", err, r.code, a, r.stderr)
	}
	for i := range uint64(3000) {
		client.write(i%1000*65536, data(i+7))
	}
	client.flush()
	if v := s.volume(); v.PhysicalBytes > 96<<20 || v.Space.CapacityBytes != 96<<20 {
		t.Errorf("%d bytes on the disk, %+v", v.PhysicalBytes, v.Space)
	}
	s.command("resize", "db", "--capacity", "none", "--size", "256M").want(t, 0, "db: capacity none, before 96.0 MiB\ndb: size 256 MiB, before 128 MiB")
	got := make([]byte, 65536)
	for i := range uint64(1000) {
		if client.read(i*65536, got); !bytes.Equal(got, data(i+2007)) {
			t.Fatalf("piece %d is not what was written", i)
		}
	}
	client.Close()
	s.stop()
	runProgram(t, "check", disk).want(t, 0, "OK")
}

package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"cawrm/cmd/internal/control"
)

// TestGC ensures that cleaning by hand gives back what overwrites and discards have left, keeps all data, and says what it did.
func TestGC(t *testing.T) {
	dir := t.TempDir()
	path, socket := create(t, filepath.Join(dir, "disk"), "--size", "64M"), filepath.Join(dir, "nbd")
	s := serve(t, path, "--name", "db", "--nbd", "unix:"+socket)
	client := dialNBD(t, socket, "db")
	const piece = 128 << 10
	data := func(i uint64, round byte) []byte {
		return bytes.Repeat([]byte{byte(i), round, byte(i >> 8), 1}, piece/4)
	}
	for i := range uint64(64 << 20 / piece) {
		client.write(i*piece, data(i, 1))
	}
	for i := uint64(0); i < 64<<20/piece; i += 2 {
		client.write(i*piece, data(i, 2))
	}
	client.flush()

	r := s.command("gc", "db", "--json")
	var g control.GCState
	if err := json.Unmarshal([]byte(r.out), &g); err != nil || r.code != 0 {
		t.Fatalf("%v: code %d, %s%s", err, r.code, r.out, r.stderr)
	}
	if g.Running || g.Segments == 0 || g.MovedBytes == 0 || g.GarbageBytes >= g.GarbageBefore/2 || g.PhysicalBytes >= g.PhysicalBefore || g.Error != "" {
		t.Errorf("%+v", g)
	}
	s.command("gc", "db").want(t, 0, "garbage ")
	s.command("gc", "other").want(t, 1, `no volume "other"`)
	s.command("gc").want(t, 2, "NAME is missing")
	got := make([]byte, piece)
	for i := range uint64(64 << 20 / piece) {
		client.read(i*piece, got)
		if !bytes.Equal(got, data(i, byte(1+(i+1)%2))) {
			t.Fatalf("piece %d is not what was written", i)
		}
	}
	client.Close()
	s.stop()
	runProgram(t, "check", path).want(t, 0, "OK")
}

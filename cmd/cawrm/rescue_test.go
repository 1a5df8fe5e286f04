package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// broken makes a container with content whose segment table is damaged.
func broken(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "broken.img")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.Create(path, aodi.CreateOptions{Size: 8 << 20}))
	v, err := aodi.Open(path, aodi.Options{})
	must(err)
	must(v.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 0, false))
	must(v.Close())
	d, err := disk.OpenFile(path, false)
	must(err)
	c, err := recovery.Newest(d)
	must(err)
	must(d.WriteCached(make([]byte, 4096), int64(c.Meta.SegRoot.Phys())*4096))
	must(d.Close())
	return path
}

// A damaged container is refused with what helps; --rescue shows it read-only; --repair mends it, and then it is served.
func TestRescueAndRepair(t *testing.T) {
	path := broken(t)
	runProgram(t, "serve", path).want(t, 1, "cawrm check --repair")
	runProgram(t, "serve", path).want(t, 1, "cawrm serve --rescue")
	runProgram(t, "check", path).want(t, 1, "mends what can be derived again")

	s := serve(t, path, "--rescue", "--nbd", "127.0.0.1:0")
	if v := s.volume(); v.Role != "rescue" || v.Rescue == nil || len(v.Rescue.Found) == 0 || len(v.Rescue.Lost) > 0 || v.Size != 8<<20 || v.UsedBytes != 1<<20 {
		t.Errorf("the status is %+v", v)
	}
	runProgram(t, "status", "--control", s.control).want(t, 0, "read-only; nothing is known to be lost")
	runProgram(t, "check", path, "--repair").want(t, 1, "in use")
	s.stop()

	runProgram(t, "check", path, "--repair").want(t, 0, "repaired  segment table")
	runProgram(t, "check", path, "--repair").want(t, 0, "OK: all")
	runProgram(t, "check", path).want(t, 0, "OK: all")
	serve(t, path).stop()
	runProgram(t, "serve", path, "--rescue", "--peer", "127.0.0.1:0").want(t, 2, "leave --mirror and --peer out")
}

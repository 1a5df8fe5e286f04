package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
)

func (s *site) run(args ...string) result {
	s.t.Helper()
	return runProgram(s.t, append(args, "--control", s.control)...)
}

// TestMirrorCommand: a mirror is added to a running daemon, listed, paused, resumed, changed, kept over a restart, and removed.
func TestMirrorCommand(t *testing.T) {
	dir := t.TempDir()
	disk := create(t, filepath.Join(dir, "disk.img"), "--size", "64M")
	b := serve(t, create(t, filepath.Join(dir, "copy.img"), "--mirror"), "--name", "disk", "--peer", "127.0.0.1:0")
	url := "cawrm://" + b.volume().Peer[0] + "/disk"
	a := serve(t, disk, "--name", "disk")
	a.run("mirror", "list").want(t, 0, "no mirrors")
	a.run("mirror", "list", "disk", "--json").want(t, 0, "[]")
	a.run("mirror", "add", "disk", "paris", url, "mode=flush").want(t, 0, "")
	a.until("synced", func(v control.Volume) bool { return len(v.Mirrors) == 1 && v.Mirrors[0].State == "synced" })
	a.run("mirror", "add", "disk", "paris", url).want(t, 1, "there is a mirror paris already")
	a.run("mirror", "add", "other", "paris", url).want(t, 1, `no volume "other"; the daemon serves: disk`)
	a.run("mirror", "pause", "disk", "rome").want(t, 1, "there is no mirror rome; there are: paris")
	a.run("mirror", "pause", "disk", "paris").want(t, 0, "")
	a.until("paused", func(v control.Volume) bool { return v.Mirrors[0].State == "paused" })
	b.until("alone", func(v control.Volume) bool { return !v.Source.Connected })
	a.run("mirror", "set", "disk", "paris", "quorum=1").want(t, 0, "")
	a.stop()

	a = serve(t, disk, "--name", "disk")
	list := a.run("mirror", "list", "disk", "--json")
	var mirrors []struct {
		Volume, ID, URL, State, Settings string
		Kept                             bool
	}
	if err := json.Unmarshal([]byte(list.out), &mirrors); err != nil || len(mirrors) != 1 {
		t.Fatalf("%v: %s%s", err, list.out, list.stderr)
	}
	if m := mirrors[0]; m.Volume != "disk" || m.ID != "paris" || m.URL != url || m.State != "paused" || m.Settings != "paused=true mode=flush quorum=1" || !m.Kept {
		t.Errorf("after a restart: %+v", m)
	}
	a.run("mirror", "resume", "disk", "paris").want(t, 0, "")
	a.until("synced again", func(v control.Volume) bool { return v.Mirrors[0].State == "synced" })
	if r := a.run("mirror", "list"); !strings.Contains(r.out, "disk/paris") || !strings.Contains(r.out, "mode=flush quorum=1") {
		t.Errorf("%+v", r)
	}
	a.run("mirror", "remove", "disk", "paris").want(t, 0, "")
	if v := a.volume(); len(v.Mirrors) != 0 {
		t.Errorf("removed: %+v", v.Mirrors)
	}
	a.stop()
	b.stop()
}

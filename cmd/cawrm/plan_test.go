package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"cawrm/cmd/internal/plan"
)

// TestPlan: a daemon and its closed container say the same of the volume's writes.
func TestPlan(t *testing.T) {
	dir := t.TempDir()
	path, nbd := create(t, filepath.Join(dir, "db"), "--size", "1M"), filepath.Join(dir, "nbd")
	s := serve(t, path, "--nbd", "unix:"+nbd)
	s.command("plan", "db").want(t, 1, "nothing in its log")
	client := dialNBD(t, nbd, "db")
	for i := range uint64(40) {
		client.write(i%10*4096, make([]byte, 4096))
	}
	client.flush()
	client.Close()
	read := func(r result) (p plan.Report) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.out), &p); err != nil {
			t.Fatalf("%v: %s%s", err, r.out, r.stderr)
		}
		if p.Bytes != 40*4096 || p.Unique != 10*4096 || len(p.Lines) != 1 || p.Lines[0].Rate != 12500000 {
			t.Errorf("%+v", p)
		}
		return p
	}
	live := read(s.command("plan", "db", "--rate", "100mbit", "--json"))
	s.command("plan", "db", "--rate", "100mbit").want(t, 0, "over 11.9 MiB/s (100.0 Mbit/s)")
	s.command("plan", "nobody").want(t, 1, `no volume "nobody"`)
	s.stop()
	if closed := read(runProgram(t, "plan", path, "--rate", "100mbit", "--json")); closed.PerDay != live.PerDay {
		t.Errorf("live %+v\nclosed %+v", live, closed)
	}
}

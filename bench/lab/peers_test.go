package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/bench/internal/build"
	"cawrm/bench/report"
)

// TestPeers ensures that bench peers measures DRBD and cawrm in a virtual machine, and that what it says there is possible: a first
// synchronisation that DRBD makes of the whole volume and cawrm of what is stored, a resumption that sends at least what was
// written, and a mirror of ours that is at every moment what its source once was.
func TestPeers(t *testing.T) {
	need(t, "bench peers was not tried in a virtual machine", "ip")
	dir := t.TempDir()
	bin, err := build.Binary(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "bench", "peers", "--quick", "--seconds", "200ms", "--profiles", "lan", "--only", "cawrm (vm),DRBD A", "--json")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	t.Logf("%s%s", log.Bytes(), out.Bytes())
	if strings.Contains(log.String(), "DRBD A needs") || strings.Contains(log.String(), "it lacks") {
		t.Skipf("SKIPPED: DRBD cannot be had here:\n%s", log.Bytes())
	}
	path := filepath.Join(dir, "peers.jsonl")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := report.Load(path)
	if err != nil || len(list) != 1 || list[0].Name != "peers/vm-lan" {
		t.Fatalf("%d experiments, %v", len(list), err)
	}
	const volume = 64 << 20 / 1e6
	for _, c := range []struct {
		series, row string
		low, high   float64
	}{
		{"DRBD A", "initial synchronisation, MB on the line", volume, 2 * volume},
		{"cawrm", "initial synchronisation, MB on the line", 5, volume / 2},
		{"DRBD A", "resume: bytes on the line over unique dirty bytes", 1, 10},
		{"cawrm", "resume: bytes on the line over unique dirty bytes", 1, 10},
		{"DRBD A", "writer's rate with over without a mirror", 1e-9, 1e9},
		{"cawrm", "writer's rate with over without a mirror", 1e-9, 1e9},
		{"cawrm", "moments of catching up at which the target was a state of the source, share", 1, 1},
	} {
		v, ok := list[0].Get(c.series, c.row)
		if !ok && strings.HasPrefix(c.row, "moments") {
			continue // the mirror had everything each time, before the line was cut
		}
		if !ok || v < c.low || v > c.high {
			t.Errorf("%s: %s: %g, %v, want %g to %g", c.series, c.row, v, ok, c.low, c.high)
		}
	}
}

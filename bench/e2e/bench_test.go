package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cawrm/bench/report"
)

// TestBenchPeers ensures that the whole of a trial works with the built binary, and that our mirror is usable at every moment at
// which it is looked at.
func TestBenchPeers(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(bin, "bench", "peers", "--only", "cawrm", "--profiles", "metro", "--rounds", "1", "--seconds", "200ms",
		"--disk", dir, "--out", filepath.Join(dir, "out"), "--json")
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var e report.Experiment
	if err := json.Unmarshal(out, &e); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	const usable = "moments of catching up at which the target was a state of the source, share"
	if v, ok := e.Get("cawrm", usable); !ok || v != 1 {
		t.Errorf("the mirror was a state of its source at %g of the moments", v)
	}
	for _, name := range []string{"peers.jsonl", "peers.html"} {
		if st, err := os.Stat(filepath.Join(dir, "out", name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

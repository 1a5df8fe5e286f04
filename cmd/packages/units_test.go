package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits: systemd understands every line of the units, and rates the daemon's as well shut in.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is missing")
	}
	units, err := filepath.Glob("systemd/*")
	if err != nil || len(units) == 0 {
		t.Fatal(units, err)
	}
	dir := t.TempDir()
	var args []string
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(unit)
		// What a unit starts must be there, and the program is not installed here.
		text = []byte(strings.ReplaceAll(string(text), "/usr/bin/cawrm", "/bin/true"))
		text = []byte(strings.ReplaceAll(string(text), "/sbin/modprobe", "/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, filepath.Join(dir, strings.Replace(name, "@.", "@db.", 1)))
	}
	c := exec.Command("systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, args...)...)
	c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	if out, err := c.CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", filepath.Join(dir, "cawrm.service")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"cawrm/bench/internal/site"
)

// told runs a command of the site's daemon.
func told(s *site.Site, args ...string) (string, error) {
	return s.Run(append(args, "--control", s.Control)...)
}

// export is the URI of another export of a site.
func export(s *site.Site, name string) string {
	return strings.TrimSuffix(s.URI(), "/vol") + "/" + name
}

// TestSnapshotsAndClones: qemu reads a snapshot while the volume is written over, and writes to a clone of it, over a kill and a
// restart of the daemon.
func TestSnapshotsAndClones(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	s := volume(t, "64M")
	first, second := file(t, "first.raw", noise(64<<20, 3)), file(t, "second.raw", noise(64<<20, 4))
	command := func(args ...string) string {
		t.Helper()
		out, err := told(s, args...)
		ok(t, err)
		return out
	}
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", first, s.URI())
	command("snapshot", "create", "vol@first")
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", second, s.URI())
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", first, export(s, "vol@first"))
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", second, s.URI())
	command("clone", "vol@first", "try")
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", first, export(s, "try"))
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 4097 70000", "-c", "discard 1M 1M", "-c", "flush", export(s, "try"))
	if _, err := told(s, "snapshot", "delete", "vol@first"); err == nil {
		t.Error("a snapshot was deleted under its clone")
	}
	s.Kill()
	ok(t, s.Start(t.Context()))
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", first, export(s, "vol@first"))
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", second, s.URI())
	run(t, "qemu-io", "-f", "raw", "-r", "-c", "read -P 7 4097 70000", "-c", "read -P 0 1M 1M", export(s, "try"))
	if list := command("snapshot", "list", "vol"); !strings.Contains(list, "vol@first") {
		t.Errorf("the list lacks the snapshot:\n%s", list)
	}
	clone := filepath.Join(filepath.Dir(s.Path), "try.clone")
	ok(t, s.Stop())
	if out, err := site.Run(t.Context(), bin, "check", clone); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	ok(t, s.Check())
	ok(t, s.Start(t.Context()))
	command("clone", "--delete", "try")
	command("snapshot", "rollback", "vol@first")
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", first, s.URI())
	for _, line := range strings.Fields(command("snapshot", "list", "vol")) {
		if kept, ok := strings.CutPrefix(line, "vol@before-rollback-"); ok {
			run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", second, export(s, "vol@before-rollback-"+kept))
		}
	}
	command("snapshot", "delete", "vol@first")
	ok(t, s.Stop())
	ok(t, s.Check())
}

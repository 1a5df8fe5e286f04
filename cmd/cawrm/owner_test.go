package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMadeByRoot: what root creates in a directory of another user is that user's, as in the packages' /var/lib/cawrm; elsewhere it is
// root's, and a file that was there before keeps its owner.
func TestMadeByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can give files away")
	}
	const other = 4711
	theirs, ours := t.TempDir(), t.TempDir()
	if err := os.Chown(theirs, other, other); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(theirs, "old.img")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path  string
		owner uint32
	}{{filepath.Join(theirs, "new.img"), other}, {filepath.Join(ours, "new.img"), 0}, {old, 0}} {
		create(t, c.path, "--size", "1M")
		st, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Sys().(*syscall.Stat_t); got.Uid != c.owner || got.Gid != c.owner {
			t.Errorf("%s belongs to %d:%d; want %d", c.path, got.Uid, got.Gid, c.owner)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMadeByRoot: what root creates in a directory of another user is that user's, as in the packages' /var/lib/cawrm and /etc/cawrm;
// elsewhere it is root's, and a file that was there before keeps its owner.
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
	for _, c := range []string{filepath.Join(theirs, "new.img"), filepath.Join(ours, "new.img"), old} {
		create(t, c, "--size", "1M")
	}
	runProgram(t, "cert", "secret", filepath.Join(theirs, "secret")).want(t, 0, "secret")
	runProgram(t, "cert", "ca", "--dir", theirs).want(t, 0, "authority")
	runProgram(t, "cert", "issue", "berlin", "--dir", theirs).want(t, 0, "berlin")
	for _, c := range []struct {
		path  string
		owner uint32
	}{
		{filepath.Join(theirs, "new.img"), other},
		{filepath.Join(ours, "new.img"), 0},
		{old, 0},
		{filepath.Join(theirs, "secret"), other},
		{filepath.Join(theirs, "berlin-key.pem"), other},
		{filepath.Join(theirs, "berlin-cert.pem"), other},
		{filepath.Join(theirs, "ca-key.pem"), 0}, // who serves need not sign
	} {
		st, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Sys().(*syscall.Stat_t); got.Uid != c.owner || got.Gid != c.owner {
			t.Errorf("%s belongs to %d:%d; want %d", c.path, got.Uid, got.Gid, c.owner)
		}
	}
}

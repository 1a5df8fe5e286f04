package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/bench/internal/site"
)

// TestDeltaFiles: a mirror begins with a file that somebody has carried over, goes on over the link with only the difference,
// gets snapshots by it, and takes another file while it is paused. qemu compares the snapshots at both sites.
func TestDeltaFiles(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	a, b := volume(t, "32M"), newSite(t, "b")
	one, two := filepath.Join(dir(t), "one"), filepath.Join(dir(t), "two")
	sh := func(s *site.Site, format string, args ...any) string {
		t.Helper()
		return run(t, "sh", "-c", fmt.Sprintf("%s %s --control %s", bin, fmt.Sprintf(format, args...), s.Control))
	}
	raw := file(t, "one.raw", noise(32<<20, 5))
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", raw, a.URI())
	sh(a, "snapshot create vol@one")
	run(t, "sh", "-c", fmt.Sprintf("%s send vol@one --control %s > %s", bin, a.Control, one))

	// Broken off first, into a container that is made for it, and then whole.
	if out, err := site.Run(t.Context(), "sh", "-c", fmt.Sprintf("head -c 10000000 %s | %s receive %s --control %s", one, bin, b.Path, b.Control)); err == nil ||
		!strings.Contains(out, "--resume") {
		t.Fatalf("a part of a file: %v\n%s", err, out)
	}
	run(t, "sh", "-c", fmt.Sprintf("%s receive %s --control %s < %s", bin, b.Path, b.Control, one))
	ok(t, b.Check())

	// The link ships what is newer.
	addr, err := site.FreeAddr()
	ok(t, err)
	b.Peer, b.Name = addr, "vol"
	ok(t, b.Start(t.Context()))
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", "-c", "flush", a.URI())
	sh(a, "mirror add vol m %s", site.MirrorURL(addr, "vol"))
	ok(t, a.WaitSynced(t.Context()))
	v, err := a.Status(t.Context())
	ok(t, err)
	if sent := v.Mirrors[0].SentBytes; sent > 2<<20 {
		t.Errorf("%d bytes crossed the link for 1 MiB that was newer than the file", sent)
	}
	sh(a, "snapshot create vol@two")
	ok(t, a.WaitSynced(t.Context()))

	// And a file does, while the mirror is paused.
	sh(a, "mirror pause vol m")
	run(t, "qemu-io", "-f", "raw", "-c", "write -P 8 2M 1M", "-c", "discard 4M 1M", "-c", "flush", a.URI())
	sh(a, "snapshot create vol@three")
	run(t, "sh", "-c", fmt.Sprintf("%s send vol@two vol@three --control %s > %s", bin, a.Control, two))
	out := sh(b, "receive vol < %s", two)
	if !strings.Contains(out, "received vol@three") {
		t.Errorf("receive says %q", out)
	}
	if out, err := site.Run(t.Context(), "sh", "-c", fmt.Sprintf("%s receive vol --control %s < %s", bin, b.Control, one)); err == nil ||
		!strings.Contains(out, "already") {
		t.Errorf("an old file: %v\n%s", err, out)
	}
	sh(a, "mirror resume vol m")
	ok(t, a.WaitSynced(t.Context()))
	for _, snap := range []string{"vol@one", "vol@two", "vol@three"} {
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", export(a, snap), export(b, snap))
	}
	if x, y := sh(a, "snapshot list vol"), sh(b, "snapshot list vol"); x != y {
		t.Errorf("the source lists\n%s\nthe mirror\n%s", x, y)
	}
	ok(t, a.Stop())
	ok(t, b.Stop())
	ok(t, a.Check())
	ok(t, b.Check())
}

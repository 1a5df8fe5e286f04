package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// Both sites are compared while the source is written, with next to nothing on the wire; a bit that flips at
// rest, on either side, is found, named, mended from the other, counted, and sound on the disk afterwards.
func TestVerifyAndRepair(t *testing.T) {
	w := newPair(t, "256M", wan.Profile{})
	c := dial(t, w.source)
	ok(t, spread(c, noise(32<<20, 1)))
	here, there := noise(4096, 2), noise(4096, 3)
	ok(t, c.Write(8192, here, 0))
	ok(t, c.Write(1<<20, there, 0))
	ok(t, c.Flush())
	w.synced(t)
	verify := func(args ...string) (string, error) {
		return w.source.Run(append([]string{"verify", "vol", "127.0.0.1", "--control", w.source.Control}, args...)...)
	}
	before := w.link.Counters()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	const busy = 64 // pieces of 4 KiB that are written over and over
	written := int64(0)
	wg.Go(func() {
		d := noise(4096, 4)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d[0]++
			ok(t, c.Write(128<<20+i%busy*4096, d, 0))
			written += 4096
		}
	})
	for range 3 {
		out, err := verify()
		if err != nil || !strings.Contains(out, "OK: they are the same") {
			t.Errorf("%s, %v", out, err)
		}
	}
	close(stop)
	wg.Wait()
	w.synced(t)
	if n := w.link.Counters().ToTarget - before.ToTarget - written; n > 1<<20+written/8 {
		t.Errorf("%d bytes more than what was written crossed the line for three comparisons of 32 MiB", n)
	}
	if out, err := w.source.Run("verify", "vol", "rome", "--control", w.source.Control); err == nil || !strings.Contains(out, "there is no mirror rome") {
		t.Errorf("%s, %v", out, err)
	}

	ok(t, w.source.Stop())
	ok(t, w.mirror.Stop())
	flip(t, w.source, here)
	flip(t, w.mirror, there)
	ok(t, w.mirror.Start(t.Context()))
	ok(t, w.source.Start(t.Context()))
	w.synced(t)
	out, err := verify()
	if err == nil || !strings.Contains(out, "bad at source  chunks [2, 3), bytes [8192, 12288)\n") || !strings.Contains(out, "bad at mirror  chunks [256, 257)") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = verify("--repair")
	if err != nil || strings.Count(out, "  mended") != 2 {
		t.Errorf("%s, %v", out, err)
	}
	out, err = verify("--json")
	var s struct {
		Same      bool
		Different []any
		DataBytes int64 `json:"data_bytes"`
	}
	if err2 := json.Unmarshal([]byte(out), &s); err != nil || err2 != nil || !s.Same || len(s.Different) > 0 || s.DataBytes < 32<<20 {
		t.Errorf("%s, %v, %v", out, err, err2)
	}
	for _, x := range []*site.Site{w.source, w.mirror} {
		out, err := x.Run("status", "--control", x.Control)
		if err != nil || !strings.Contains(out, "1 chunks mended from another site") {
			t.Errorf("%s, %v", out, err)
		}
	}
	w.identical(t)
	w.closed(t)
}

// flip flips a bit in the place of a container that holds this chunk.
func flip(t *testing.T, s *site.Site, chunk []byte) {
	t.Helper()
	b, err := os.ReadFile(s.Path)
	ok(t, err)
	i := bytes.Index(b, chunk)
	if i < 0 {
		t.Fatalf("the chunk is not in %s", s.Path)
	}
	f, err := os.OpenFile(s.Path, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt([]byte{b[i+77] ^ 4}, int64(i)+77)
	ok(t, err)
	ok(t, f.Close())
}

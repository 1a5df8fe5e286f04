package show

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		stage       string
		done, total int64
		took        time.Duration
		want        string
	}{
		{"promote", 0, 0, 12 * time.Second, "promote  12 s"},
		{"data", 0, 1 << 30, 2 * time.Second, "data  2 s"},
		{"sending", 3 << 20, 0, 2 * time.Second, "sending  3.0 MiB  1.5 MiB/s  2.0 s"},
		{"data", 256 << 20, 1 << 30, 2 * time.Second, "data  [#####---------------]  25%  256 MiB of 1.0 GiB  128 MiB/s  6.0 s left"},
		{"data", 1 << 30, 1 << 30, 2 * time.Second, "data  [####################] 100%  1.0 GiB of 1.0 GiB  512 MiB/s"},
		{"a\x1b[2J\nb", 0, 0, time.Second, "a [2J b  1 s"},
	} {
		if got := progressLine(c.stage, c.done, c.total, c.took); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestProgressIsCalm: nothing is shown in the first second, nor where there is no terminal; a line never wraps, and is gone afterwards.
func TestProgressIsCalm(t *testing.T) {
	var quiet bytes.Buffer
	p := NewMeter(&quiet)
	p.Step("data", 1, 2)
	p.Close()
	p.Close()
	if quiet.Len() > 0 {
		t.Errorf("a pipe gets %q", quiet.String())
	}
	synctest.Test(t, func(t *testing.T) {
		var out buffer
		p := newMeter(&out, progressDelay, func() int { return 10 })
		p.Step("comparing all of it", 0, 0)
		time.Sleep(progressDelay - time.Millisecond)
		if s := out.String(); s != "" {
			t.Errorf("before a second: %q", s)
		}
		time.Sleep(5 * progressEvery)
		p.Close()
		s := out.String()
		if !strings.HasPrefix(s, "\rcomparing\x1b[K\r") || !strings.HasSuffix(s, "\r\x1b[K") {
			t.Errorf("%q", s)
		}
	})
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

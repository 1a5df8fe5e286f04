package show_test

import (
	"bytes"
	"context"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/show"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestStatusGolden(t *testing.T) {
	disk := control.Volume{
		Name: "disk.img", Role: "primary", Size: 10 << 30, UsedBytes: 1288490189, PhysicalBytes: 1395864371, EndPtr: 123456, DurablePtr: 123450,
	}
	with := func(v control.Volume, m ...control.Mirror) control.Volume { v.Mirrors = m; return v }
	synced := control.Mirror{ID: "berlin", State: control.StateSynced, SyncPtr: 123450, RateBPS: 8 << 20, SentBytes: 100 << 20, DataBytes: 482 << 20}
	syncing := control.Mirror{
		ID: "paris", State: control.StateSyncing, SyncPtr: 53210, LagRecords: 70240, LagBytes: 287703040, LagSeconds: 84.4,
		RateBPS: 11.2 * (8 << 20), ETASeconds: 24.5,
	}
	down := control.Mirror{
		ID: "rome", State: control.StateDown, SyncPtr: 0, LagRecords: 123450, LagBytes: 505651200, LagSeconds: 90061, ETASeconds: -1,
		LastError: "dial tcp 10.0.0.3:7000: connect: connection refused",
	}
	connecting := control.Mirror{ID: "oslo", State: control.StateConnecting}
	mirror := control.Volume{
		Name: "copy", Role: "mirror", Size: 10 << 30, EndPtr: 53210, DurablePtr: 53210,
		Source: &control.Source{Connected: true, Address: "10.0.0.1:50312"},
	}
	for _, c := range []struct {
		name   string
		status control.Status
	}{
		{"none", control.Status{}},
		{"space", control.Status{Volumes: []control.Volume{
			{Name: "file", Role: "primary", Size: 1 << 30, Space: &control.Space{SegmentsUsed: 20, SegmentsFree: 3, UsedBytes: 160 << 20,
				LiveBytes: 100 << 20, GarbageBytes: 60 << 20}},
			{Name: "bounded", Role: "primary", Size: 1 << 30, Space: &control.Space{CapacityBytes: 1 << 30, SegmentsLimit: 512, SegmentsFree: 100,
				SegmentsUsed: 412, UsedBytes: 824 << 20, LiveBytes: 700 << 20, GarbageBytes: 124 << 20, MaxLiveBytes: 900 << 20, WriteAmplification: 2.345, WritesWaiting: 2}},
			{Name: "full", Role: "primary", Size: 1 << 30, Space: &control.Space{CapacityBytes: 1 << 30, SegmentsLimit: 512, SegmentsUsed: 500, SegmentsFree: 12,
				UsedBytes: 1000 << 20, LiveBytes: 900 << 20, MaxLiveBytes: 900 << 20, WriteAmplification: 1}},
			{Name: "broken", Role: "failed", Error: "not there"},
		}}},
		{"primary", control.Status{Volumes: []control.Volume{disk}}},
		{"mirrors", control.Status{Volumes: []control.Volume{with(disk, synced, syncing, down, connecting), mirror}}},
		{"mirrors-waiting", control.Status{Volumes: []control.Volume{
			{Name: "empty", Role: "mirror", Source: &control.Source{}},
			{Name: "refused", Role: "mirror", Source: &control.Source{LastError: "another volume"}},
			{Name: "waiting", Role: "mirror", Size: 4096, Source: &control.Source{}},
			{Name: "left", Role: "mirror", Size: 4096, Source: &control.Source{Address: "10.0.0.1:50312", SilentSeconds: 84, LastError: "the link is stalled"}},
			{Name: "alone", Role: "mirror", Size: 4096},
		}}},
		{"failed", control.Status{Volumes: []control.Volume{{
			Name: "bad\x1b[2Jname\n", Role: "primary", Size: 1 << 20, ChecksumErrors: 3, Error: "/dev/sdx: fdatasync: input/output error",
		}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := show.Status(&got, c.status); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", c.name+".txt")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%v; got\n%s\nwant\n%s", err, &got, want)
			}
		})
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 4096: "4.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 123 << 30: "123 GiB",
		16 << 40: "16.0 TiB", math.MaxInt64: "8.0 EiB", -4096: "-4.0 KiB",
	} {
		if got := show.Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{
		0: "0 s", -1: "0 s", 0.25: "0.25 s", 4.2: "4.2 s", 59.9: "59.9 s", 59.96: "1m00s", 72: "1m12s", 3600: "1h00m",
		11040: "3h04m", 190800: "2d05h", math.Inf(1): "years",
	} {
		if got := show.Seconds(s); got != want {
			t.Errorf("%v: %s, want %s", s, got, want)
		}
	}
	for done, want := range map[float64]string{0: "[----]", 0.5: "[##--]", 0.99: "[###-]", 1: "[####]", 7: "[####]", -1: "[----]"} {
		if got := show.Bar(done, 4); got != want {
			t.Errorf("%v: %s, want %s", done, got, want)
		}
	}
	if got := show.Bar(math.NaN(), 4); got != "[----]" {
		t.Error(got)
	}
	if got := show.Rate(1536); got != "1.5 KiB/s" {
		t.Error(got)
	}
}

// TestProgressIsNotRoundedUp: a mirror that lacks one record of a million does not show 100 %.
func TestProgressIsNotRoundedUp(t *testing.T) {
	v := control.Volume{DurablePtr: 1000000}
	if got := show.Progress(v, control.Mirror{SyncPtr: 999999}); got >= 0.995 {
		t.Error(got)
	}
	if got := show.Progress(v, control.Mirror{SyncPtr: 500000, EpochProgress: 0.5}); got != 0.75 {
		t.Errorf("half of the log, and half of an epoch that is the rest: %v", got)
	}
	if got := show.Progress(v, control.Mirror{SyncPtr: 1000000}); got != 1 {
		t.Error(got)
	}
}

// TestWatch: a frame takes the place of the one before on a screen of its own, which is given back however it ends; a window that
// changes is drawn anew, one that is too small is told so; and on a pipe frames follow each other.
func TestWatch(t *testing.T) {
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	const all, tiny = "\x1b[Habc\x1b[K\nb\x1b[K\nc\x1b[K\n\x1b[J", "\x1b[Hab\x1b[K\n..\x1b[K\n\x1b[J"
	for _, c := range []struct {
		name           string
		columns, lines int // 0: no terminal
		key            byte
		resize         bool
		want           string
	}{
		{name: "pipe", want: "abc\nb\nc\n\nabc\nb\nc\n"},
		{name: "terminal", columns: 80, lines: 24, want: enter + "\x1b[2J" + all + all + leave},
		{name: "tiny terminal", columns: 2, lines: 3, want: enter + "\x1b[2J" + tiny + tiny + leave},
		{name: "q", columns: 80, lines: 24, key: 'q', want: enter + "\x1b[2J" + all + leave},
		{name: "Ctrl-C", columns: 80, lines: 24, key: 3, want: enter + "\x1b[2J" + all + leave},
		{name: "another key", columns: 80, lines: 24, key: 'x', want: enter + "\x1b[2J" + all + all + all + leave},
		{name: "resize", columns: 80, lines: 24, resize: true, want: enter + "\x1b[2J" + all + "\x1b[2J" + all + all + leave},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				var terminal *show.Terminal
				if c.columns > 0 {
					keys, resized := make(chan byte, 1), make(chan struct{}, 1)
					terminal = &show.Terminal{Size: func() (int, int) { return c.columns, c.lines }, Keys: keys, Resized: resized}
					if c.key != 0 {
						time.AfterFunc(500*time.Millisecond, func() { keys <- c.key })
					}
					if c.resize {
						time.AfterFunc(500*time.Millisecond, func() { resized <- struct{}{} })
					}
				}
				var out strings.Builder
				err := show.Watch(ctx, &out, terminal, time.Second, func(context.Context) string { return "abc\nb\nc\n" })
				if err != nil || out.String() != c.want {
					t.Errorf("%v, %q\nwant %q", err, out.String(), c.want)
				}
			})
		})
	}
}

package value

import (
	"testing"
	"time"
)

// TestWindow: what is a window, and what is refused.
func TestWindow(t *testing.T) {
	for text, want := range map[string]Window{
		"24h": {Age: 24 * time.Hour}, "7d": {Age: 168 * time.Hour}, "1h30m": {Age: 90 * time.Minute}, "20G": {Bytes: 20 << 30},
		"24h,20G": {24 * time.Hour, 20 << 30}, "20G,1d": {24 * time.Hour, 20 << 30},
	} {
		var w Window
		if err := w.Set(text); err != nil || w != want {
			t.Errorf("%s: %+v, %v", text, w, err)
		}
		var again Window
		if err := again.Set(w.String()); err != nil || again != w {
			t.Errorf("%s is written %s, which is %+v, %v", text, w.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-1h", "x", "1h,2h", "1G,2G", "24h,", "999999999d", "0h"} {
		if w := (Window{1, 1}); w.Set(text) == nil || w != (Window{1, 1}) {
			t.Errorf("%q was taken: %+v", text, w)
		}
	}
}

// TestMoment: points in time, as they stand and from now.
func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-11-20T22:17:05.250Z": time.Date(2026, 11, 20, 22, 17, 5, 250e6, time.UTC), "2026-11-20T22:17:05+01:00": time.Date(2026, 11, 20, 21, 17, 5, 0, time.UTC),
		"-15m": now.Add(-15 * time.Minute), "-2d": now.Add(-48 * time.Hour),
	} {
		if at, ok := Moment(text, now); !ok || !at.Equal(want) {
			t.Errorf("%s is %v, %v", text, at, ok)
		}
	}
	for _, text := range []string{"", "-", "monday", "--1h", "-0s", "2026-11-20"} {
		if at, ok := Moment(text, now); ok {
			t.Errorf("%q is %v", text, at)
		}
	}
}

package cawrm

import (
	"strings"
	"testing"
	"time"
)

// TestSettingsText: what is written is read as the same, whatever the order.
func TestSettingsText(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"limit=10M", "limit=10M"},
		{"limit=10MiB/s", "limit=10M"},
		{"limit=100mbit", "limit=100mbit"},
		{"limit=0", ""},
		{"limit=off&burst=64K", "burst=64K"},
		{"limit=12345", "limit=12345"},
		{"mode=flush&limit=1.5K", "limit=1536&mode=flush"},
		{"paused=true&compress=off", "compress=off&paused=true"},
		{"schedule=09:00-17:00=2M,mon-fri@17:00-22:30=100mbit,sat@22:00-06:00=off", "schedule=09:00-17:00=2M,mon-fri@17:00-22:30=100mbit,sat@22:00-06:00=off"},
		{"schedule=fri-mon%4000%3A00-24%3A00%3D1M", "schedule=fri-mon@00:00-24:00=1M"},
	} {
		s, err := ParseSettings(tt.text)
		if err != nil || s.Query() != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.text, s.Query(), err, tt.want)
		}
		again, err := ParseSettings(s.Query())
		if err != nil || again.Query() != tt.want {
			t.Errorf("%s again: %q, %v", tt.text, again.Query(), err)
		}
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"limits=1M", "limit, burst, schedule"},
		{"limit=", "no rate"},
		{"limit=-1M", "no rate"},
		{"limit=1e9", "no rate"},
		{"limit=inf", "no rate"},
		{"burst=0.1", "less than one byte"},
		{"limit=1000", "less than 1K"},
		{"schedule=09:00-17:00=1000", "less than 1K"},
		{"limit=9999999G", "no rate"},
		{"limit=1M&limit=2M", "twice"},
		{"mode=sync", "async flush"},
		{"compress=9", "auto off fast default better best"},
		{"paused=maybe", "true nor false"},
		{"limit=%zz", "limit"},
		{"schedule=9-17=1M", "time of day"},
		{"schedule=09:00-17:00", "rate is missing"},
		{"schedule=09:00=1M", "span of time"},
		{"schedule=09:00-24:01=1M", "time of day"},
		{"schedule=24:00-09:00=1M", "24:00"},
		{"schedule=feb@09:00-17:00=1M", "no day"},
		{"schedule=" + strings.Repeat("09:00-17:00=1M,", 64) + "09:00-17:00=1M", "64 windows"},
	} {
		if _, err := ParseSettings(tt.text); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.text, err, tt.says)
		}
	}
}

func TestScheduleHolds(t *testing.T) {
	s := Settings{Limit: 7}
	if err := s.Set("schedule", "mon-fri@09:00-17:00=1K,fri@22:00-06:00=2K,12:00-13:00=3K,22:00-22:30=off"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   string // 2 November 2026 is a Monday
		want int64
	}{
		{"02 08:59:59", 7}, {"02 09:00:00", 1 << 10}, {"02 12:30:00", 1 << 10}, {"02 17:00:00", 7}, {"02 22:10:00", 0},
		{"06 22:10:00", 2 << 10}, {"07 05:59:59", 2 << 10}, {"07 06:00:00", 7}, {"07 12:00:00", 3 << 10}, {"08 05:00:00", 7},
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-11-"+tt.at, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.limitAt(now); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.at, got, tt.want)
		}
	}
}

package value

import (
	"fmt"
	"strings"
	"time"
)

// Window is how far back a history goes: a time, an amount of log, or both, of which the shorter counts.
type Window struct {
	Age   time.Duration
	Bytes int64
}

// Set takes 24h, 7d, 20G, or two of them with a comma between.
func (w *Window) Set(text string) error {
	var n Window
	for _, part := range strings.Split(text, ",") {
		if age, err := duration(part); err == nil && n.Age == 0 {
			n.Age = age
			continue
		}
		var s Size
		if err := s.Set(part); err != nil || s <= 0 || n.Bytes != 0 {
			return fmt.Errorf("%q is no window: a time as 24h or 7d, an amount of log as 20G, or both as 24h,20G", text)
		}
		n.Bytes = int64(s)
	}
	*w = n
	return nil
}

func (w *Window) String() string {
	var parts []string
	if w.Age > 0 {
		parts = append(parts, w.Age.String())
	}
	if w.Bytes > 0 {
		s := Size(w.Bytes)
		parts = append(parts, s.String())
	}
	return strings.Join(parts, ",")
}

// Type names the value in the help text.
func (w *Window) Type() string { return "window" }

// duration is time.ParseDuration with days, and without what is not above zero.
func duration(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if ok {
		text = days + "h"
	}
	d, err := time.ParseDuration(text)
	if err == nil && ok {
		if d > 100*366*time.Hour {
			return 0, fmt.Errorf("%sd is too long", days)
		}
		d *= 24
	}
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is not above zero", text)
	}
	return d, err
}

// Moment reads a point in time: 2026-11-20T22:17:05.250Z, with any offset, or -15m, from now.
func Moment(text string, now time.Time) (time.Time, bool) {
	if back, ok := strings.CutPrefix(text, "-"); ok {
		d, err := duration(back)
		return now.Add(-d), err == nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return at, err == nil
}

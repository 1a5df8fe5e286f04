package cawrm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule is a list of limits by time of day, in the daemon's time zone. The first that holds counts.
//
//	09:00-17:00=2M,mon-fri@17:00-22:00=100mbit,22:00-09:00=off
type Schedule []Window

// Window is a limit for a time of day.
type Window struct {
	Days     [7]bool       // on which it begins, from Sunday
	From, To time.Duration // since midnight; To at or before From lies on the next day
	Limit    int64         // bytes a second; 0: none
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const day = 24 * time.Hour

// maxWindows bounds a schedule.
const maxWindows = 64

// ParseSchedule reads windows with commas between them: [DAY[-DAY]@]HH:MM-HH:MM=RATE.
func ParseSchedule(text string) (Schedule, error) {
	var s Schedule
	if text == "" || text == "off" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		w, err := parseWindow(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q: %w; want [DAY[-DAY]@]HH:MM-HH:MM=RATE, as mon-fri@09:00-17:00=2M", part, err)
		}
		if s = append(s, w); len(s) > maxWindows {
			return nil, fmt.Errorf("more than %d windows", maxWindows)
		}
	}
	return s, nil
}

func parseWindow(text string) (w Window, err error) {
	span, limit, ok := strings.Cut(text, "=")
	if !ok {
		return w, fmt.Errorf("the rate is missing")
	}
	names := "sun-sat"
	if d, rest, ok := strings.Cut(span, "@"); ok {
		names, span = d, rest
	}
	if w.Days, err = parseDays(strings.ToLower(names)); err != nil {
		return w, err
	}
	from, to, ok := strings.Cut(span, "-")
	if !ok {
		return w, fmt.Errorf("%q is no span of time", span)
	}
	if w.From, err = parseClock(from); err != nil {
		return w, err
	}
	if w.To, err = parseClock(to); err != nil {
		return w, err
	}
	if w.From == day {
		return w, fmt.Errorf("nothing begins at 24:00")
	}
	w.Limit, err = parseLimit(limit)
	return w, err
}

func parseDays(text string) (set [7]bool, err error) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	i, end := slices.Index(days, first), slices.Index(days, last)
	if i < 0 || end < 0 {
		return set, fmt.Errorf("%q is no day, nor days as mon-fri", text)
	}
	for ; ; i = (i + 1) % 7 {
		set[i] = true
		if i == end {
			return set, nil
		}
	}
}

func parseClock(text string) (time.Duration, error) {
	var h, m int
	if n, err := fmt.Sscanf(text, "%2d:%2d", &h, &m); err != nil || n != 2 || len(text) != 5 || h < 0 || m < 0 || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, fmt.Errorf("%q is no time of day", text)
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute, nil
}

// String is the text that ParseSchedule reads.
func (s Schedule) String() string {
	parts := make([]string, len(s))
	for i, w := range s {
		parts[i] = w.String()
	}
	return strings.Join(parts, ",")
}

func (w Window) String() string {
	limit := formatRate(w.Limit)
	if limit == "" {
		limit = "off"
	}
	return daysText(w.Days) + clock(w.From) + "-" + clock(w.To) + "=" + limit
}

// daysText is the days with their @, "" for all of them. Days follow each other, as they can only be given so.
func daysText(set [7]bool) string {
	first := slices.IndexFunc([]int{0, 1, 2, 3, 4, 5, 6}, func(i int) bool { return set[i] && !set[(i+6)%7] })
	if first < 0 {
		return ""
	}
	last := first
	for set[(last+1)%7] {
		last = (last + 1) % 7
	}
	if first == last {
		return days[first] + "@"
	}
	return days[first] + "-" + days[last] + "@"
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d/time.Hour), int(d/time.Minute)%60)
}

// at is the limit of the first window that holds now.
func (s Schedule) at(now time.Time) (limit int64, ok bool) {
	h, m, sec := now.Clock()
	clock := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec)*time.Second
	today := int(now.Weekday())
	for _, w := range s {
		if w.holds(today, clock) {
			return w.Limit, true
		}
	}
	return 0, false
}

// holds tells whether the window is open on that day, or still is since the day before.
func (w Window) holds(today int, clock time.Duration) bool {
	if w.From < w.To {
		return w.Days[today] && clock >= w.From && clock < w.To
	}
	return w.Days[today] && clock >= w.From || w.Days[(today+6)%7] && clock < w.To
}

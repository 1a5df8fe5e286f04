package wan

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Profile says what one line is like. Both directions are alike. The zero
// Profile is a line without delay and without a limit.
type Profile struct {
	Name   string
	Delay  time.Duration // one way
	Jitter time.Duration // up to this much more, drawn for each segment; order is kept
	Rate   int64         // bytes a second in each direction; 0 is unlimited
	Queue  int           // bytes that may wait to be sent, besides those under way; 0 is one bandwidth-delay product
	Seed   uint64        // of the jitter
}

const (
	minQueue       = 64 << 10 // a queue below a few segments would throttle the line
	unlimitedQueue = 16 << 20 // an unlimited rate has no bandwidth-delay product
	maxSegment     = 32 << 10
	minSegment     = 1500
)

// The named profiles. Rates are line rates divided by eight.
var profiles = map[string]Profile{
	"lan":   {Name: "lan"},
	"metro": {Name: "metro", Delay: 2500 * time.Microsecond, Rate: 125_000_000},
	"wan":   {Name: "wan", Delay: 25 * time.Millisecond, Rate: 12_500_000},
	"bad":   {Name: "bad", Delay: 50 * time.Millisecond, Jitter: 5 * time.Millisecond, Rate: 2_500_000},
}

// Lookup returns the profile of that name, or an error that lists the names.
func Lookup(name string) (Profile, error) {
	p, ok := profiles[name]
	if !ok {
		return Profile{}, fmt.Errorf("no link profile %q, there are %s", name, strings.Join(Names(), ", "))
	}
	return p, nil
}

// Names returns the names of the profiles, sorted.
func Names() []string {
	names := make([]string, 0, len(profiles))
	for n := range profiles {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// String describes the profile for a log line: "wan: 50ms round trip, 100 Mbit/s".
func (p Profile) String() string {
	rate := "no rate limit"
	if p.Rate > 0 {
		rate = fmt.Sprintf("%g Mbit/s", float64(p.Rate)*8/1e6)
	}
	s := fmt.Sprintf("%s round trip, %s", 2*p.Delay, rate)
	if p.Jitter > 0 {
		s += fmt.Sprintf(", jitter %s", p.Jitter)
	}
	if p.Name != "" {
		s = p.Name + ": " + s
	}
	return s
}

// validate refuses what no line can be.
func (p Profile) validate() error {
	if p.Delay < 0 || p.Jitter < 0 || p.Rate < 0 || p.Queue < 0 {
		return fmt.Errorf("link profile %+v: delay, jitter, rate and queue cannot be negative", p)
	}
	return nil
}

// capacity is how many bytes a direction of a connection may hold: those
// under way plus those that wait to be sent.
func (p Profile) capacity() int {
	queue := p.Queue
	if p.Rate == 0 {
		if queue == 0 {
			queue = unlimitedQueue
		}
		return queue
	}
	if queue == 0 {
		queue = max(p.bytesIn(2*p.Delay), minQueue)
	}
	return p.bytesIn(p.Delay+p.Jitter) + queue
}

// bytesIn is how many bytes the line sends in d.
func (p Profile) bytesIn(d time.Duration) int {
	return int(float64(p.Rate) * d.Seconds())
}

// segment is the size of the pieces in which bytes travel: a millisecond of
// the line, so that a short message does not wait long behind a large one.
func (p Profile) segment() int {
	if p.Rate == 0 {
		return maxSegment
	}
	return min(max(p.bytesIn(time.Millisecond), minSegment), maxSegment)
}

// sending is how long the line is busy with n bytes.
func (p Profile) sending(n int) time.Duration {
	if p.Rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(p.Rate) * float64(time.Second))
}

package wan

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

// Profile says what one line is like. Both directions are alike. The zero
// Profile is a line without delay and without a limit.
type Profile struct {
	Name       string
	Delay      time.Duration // one way
	Jitter     time.Duration // up to this much more, drawn for each segment or packet
	Rate       int64         // bytes a second in each direction; 0 is unlimited
	Queue      int           // bytes that may wait to be sent, besides those under way; 0 is one bandwidth-delay product
	Loss       float64       // share of the packets that are lost, 0 to 1; only where there are packets
	Reorder    float64       // share of the packets that overtake those under way; only where there are packets
	Congestion string        // TCP congestion control across the line; "" is the system's
	Seed       uint64        // of jitter, loss and reordering
	Script     []Step        // what happens to the line, in the order of time
	Repeat     time.Duration // the script starts over after so long; 0: it runs once
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
	"bad": {Name: "bad", Delay: 50 * time.Millisecond, Jitter: 5 * time.Millisecond, Rate: 2_500_000,
		Loss: 0.005},
	"satellite": {Name: "satellite", Delay: 300 * time.Millisecond, Jitter: 10 * time.Millisecond, Rate: 3_125_000,
		Loss: 0.001},
	"flapping": {Name: "flapping", Delay: 25 * time.Millisecond, Rate: 12_500_000, Repeat: 10 * time.Second,
		Script: []Step{
			{4 * time.Second, "stall"}, {5 * time.Second, "heal"},
			{8 * time.Second, "cut"}, {10 * time.Second, "heal"},
		}},
}

// Lookup returns the profile of that name, or an error that lists the names.
func Lookup(name string) (Profile, error) {
	p, ok := profiles[name]
	if !ok {
		return Profile{}, fmt.Errorf("no link profile %q, there are %s", name, strings.Join(Names(), ", "))
	}
	return p, nil
}

// Find returns the profile of that name, or the one in the file of that name.
func Find(nameOrFile string) (Profile, error) {
	p, err := Lookup(nameOrFile)
	if err == nil {
		return p, nil
	}
	if strings.ContainsAny(nameOrFile, "/.") {
		return Load(nameOrFile)
	}
	if _, failed := os.Stat(nameOrFile); failed == nil {
		return Load(nameOrFile)
	}
	return Profile{}, fmt.Errorf("%w, or give a file such as ./office.toml", err)
}

// Names returns the names of the profiles, the gentle lines first.
func Names() []string {
	names := make([]string, 0, len(profiles))
	for n := range profiles {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { // flapping is like wan, and comes last
		a, b := profiles[names[i]], profiles[names[j]]
		if (a.Script == nil) != (b.Script == nil) {
			return a.Script == nil
		}
		return a.Delay < b.Delay
	})
	return names
}

// String describes the profile for a log line: "wan: 50ms round trip, 100 Mbit/s".
func (p Profile) String() string {
	s := fmt.Sprintf("%s round trip, %s", 2*p.Delay, FormatRate(p.Rate))
	if p.Jitter > 0 {
		s += fmt.Sprintf(", jitter %s", p.Jitter)
	}
	if p.Loss > 0 {
		s += fmt.Sprintf(", loss %s", FormatPercent(p.Loss))
	}
	if p.Reorder > 0 {
		s += fmt.Sprintf(", reorder %s", FormatPercent(p.Reorder))
	}
	if len(p.Script) > 0 {
		s += ", " + p.script()
	}
	if p.Name != "" {
		s = p.Name + ": " + s
	}
	return s
}

// validate refuses what no line can be.
func (p Profile) validate() error {
	switch {
	case p.Delay < 0 || p.Jitter < 0 || p.Rate < 0 || p.Queue < 0:
		return fmt.Errorf("link profile %q: delay, jitter, rate and queue cannot be negative", p.Name)
	case p.Loss < 0 || p.Loss >= 1 || p.Reorder < 0 || p.Reorder >= 1:
		return fmt.Errorf("link profile %q: loss and reorder are at least 0%% and below 100%%", p.Name)
	}
	return p.checkScript()
}

// packets says whether only a line of packets can do all that the profile asks.
func (p Profile) packets() bool { return p.Loss > 0 || p.Reorder > 0 }

// capacity is how many bytes a direction of a connection may hold: those
// under way plus those that wait to be sent.
func (p Profile) capacity() int {
	if p.Rate == 0 {
		return p.queue()
	}
	return p.bytesIn(p.Delay+p.Jitter) + p.queue()
}

// queue is how many bytes may wait to be sent.
func (p Profile) queue() int {
	switch {
	case p.Queue > 0:
		return p.Queue
	case p.Rate == 0:
		return unlimitedQueue
	}
	return max(p.bytesIn(2*p.Delay), minQueue)
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

package cawrm

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mode says when a client's FLUSH or FUA returns.
type Mode string

// The modes.
const (
	ModeAsync Mode = "async" // when this side has it on stable storage
	ModeFlush Mode = "flush" // when the mirror has committed it too
)

// Compression says what is done to the data before it is sent.
type Compression string

// The kinds of compression.
const (
	CompressAuto Compression = "auto" // as much as the link leaves time for
	CompressOff  Compression = "off"
	CompressFast Compression = "fast" // the lowest level, always; frames refer to nothing
	CompressMore Compression = "default"
	CompressHard Compression = "better"
	CompressBest Compression = "best" // the highest, always
)

// Settings are what of a mirror can be changed while it runs. The zero value is the default.
//
// As text they are key=value, in the query of a mirror's URL (cawrm://host/NAME?limit=10M&schedule=...) and on the command
// line of `cawrm mirror set`.
type Settings struct {
	Limit    int64       // bytes on the wire a second at most; 0: no cap
	Burst    int64       // bytes that may go at once after a pause; 0: what Limit allows in a quarter of a second
	Schedule Schedule    // other limits by time of day
	Compress Compression // "": auto
	Paused   bool        // nothing is shipped, the link is down
	Mode     Mode        // "": async

	Quorum    int           // of flush mode: so many of the mirrors in it must have committed; 0: all
	Timeout   time.Duration // of flush mode: after it OnTimeout decides; 0: DefaultFlushTimeout
	OnTimeout OnTimeout     // "": block
}

// OnTimeout says what becomes of a flush that the mirror has not committed in time.
type OnTimeout string

// The choices.
const (
	TimeoutBlock   OnTimeout = "block"   // it waits on
	TimeoutDegrade OnTimeout = "degrade" // it returns, and none waits for this mirror until it has caught up
)

// DefaultFlushTimeout is how long a flush waits when no Timeout is set.
const DefaultFlushTimeout = 10 * time.Second

// settingKeys are the keys in the order in which they are written.
var settingKeys = []string{"limit", "burst", "schedule", "compress", "paused", "mode", "quorum", "timeout", "on-timeout"}

// Set changes what key names. The errors say what is wrong and what is right.
func (s *Settings) Set(key, text string) (err error) {
	next := *s
	switch key {
	case "limit":
		next.Limit, err = parseLimit(text)
	case "burst":
		next.Burst, err = ParseRate(text)
	case "schedule":
		next.Schedule, err = ParseSchedule(text)
	case "compress":
		next.Compress, err = oneOf(text, CompressAuto, CompressOff, CompressFast, CompressMore, CompressHard, CompressBest)
	case "paused":
		if next.Paused, err = strconv.ParseBool(text); err != nil {
			err = fmt.Errorf("%q is neither true nor false", text)
		}
	case "mode":
		next.Mode, err = oneOf(text, ModeAsync, ModeFlush)
	case "quorum":
		if next.Quorum, err = strconv.Atoi(text); err != nil || next.Quorum < 0 || next.Quorum > 1000 {
			err = fmt.Errorf("%q is no number of mirrors", text)
		}
	case "timeout":
		if next.Timeout, err = time.ParseDuration(text); err != nil || next.Timeout < time.Millisecond {
			err = fmt.Errorf("%q is no time; give one such as 10s, at least 1ms", text)
		}
	case "on-timeout":
		next.OnTimeout, err = oneOf(text, TimeoutBlock, TimeoutDegrade)
	default:
		return fmt.Errorf("a mirror has no setting %q; there are %s", key, strings.Join(settingKeys, ", "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	*s = next
	return nil
}

// Get is the text of a setting as Set reads it, "" for the default.
func (s *Settings) Get(key string) string {
	switch key {
	case "limit":
		return formatRate(s.Limit)
	case "burst":
		return formatRate(s.Burst)
	case "schedule":
		return s.Schedule.String()
	case "compress":
		return string(s.Compress)
	case "paused":
		if s.Paused {
			return "true"
		}
	case "mode":
		return string(s.Mode)
	case "quorum":
		if s.Quorum > 0 {
			return strconv.Itoa(s.Quorum)
		}
	case "timeout":
		if s.Timeout > 0 {
			return s.Timeout.String()
		}
	case "on-timeout":
		return string(s.OnTimeout)
	}
	return ""
}

// Query is what is not the default, as the query of a mirror's URL, without the question mark.
func (s *Settings) Query() string {
	var parts []string
	for _, k := range settingKeys {
		if v := s.Get(k); v != "" {
			parts = append(parts, k+"="+escape(v))
		}
	}
	return strings.Join(parts, "&")
}

// escape leaves what people read in a schedule as it is.
func escape(v string) string {
	return strings.NewReplacer("%3A", ":", "%2C", ",", "%3D", "=", "%40", "@").Replace(url.QueryEscape(v))
}

// String is Query for people.
func (s *Settings) String() string {
	var parts []string
	for _, k := range settingKeys {
		if v := s.Get(k); v != "" {
			parts = append(parts, k+"="+v)
		}
	}
	return strings.Join(parts, " ")
}

// Assign is Set with key=value.
func (s *Settings) Assign(text string) error {
	key, v, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%q is no setting; want KEY=VALUE", text)
	}
	return s.Set(key, v)
}

// ParseSettings reads what Query writes. Each key may stand in it once.
func ParseSettings(query string) (Settings, error) {
	var s Settings
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		key, text, _ := strings.Cut(part, "=")
		if strings.Count("&"+query, "&"+key+"=") > 1 {
			return s, fmt.Errorf("%s is given twice", key)
		}
		text, err := url.QueryUnescape(text)
		if err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
		if err := s.Set(key, text); err != nil {
			return s, err
		}
	}
	return s, nil
}

func oneOf[T ~string](text string, words ...T) (T, error) {
	if i := slices.Index(words, T(text)); i >= 0 {
		return words[i], nil
	}
	return "", fmt.Errorf("%q is none of %s", text, strings.Trim(fmt.Sprint(words), "[]"))
}

// limitAt is the limit at a time of day, bytes a second; 0: none.
func (s *Settings) limitAt(now time.Time) int64 {
	if rate, ok := s.Schedule.at(now); ok {
		return rate
	}
	return s.Limit
}

// minLimit is the least limit: below, a link would be silent for so long that it is taken for dead.
const minLimit = 1 << 10

func parseLimit(text string) (int64, error) {
	n, err := ParseRate(text)
	if err == nil && n > 0 && n < minLimit {
		err = fmt.Errorf("%q is less than 1K; to ship nothing, pause the mirror", text)
	}
	return n, err
}

var rateUnits = []struct {
	suffix string
	factor float64
}{{"gbit", 1e9 / 8}, {"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}, {"gib", 1 << 30}, {"mib", 1 << 20}, {"kib", 1 << 10},
	{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}}

// ParseRate reads bytes with K, M or G, powers of 1024, or bits as networks count them: 500K, 20M, 100mbit; a second, where a rate is
// meant, with or without /s. "off" and "0" are 0.
func ParseRate(text string) (int64, error) {
	number, factor := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(text)), "/s"), 1.0
	if number == "off" {
		return 0, nil
	}
	for _, u := range rateUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = rest, u.factor
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" || n*factor > 1<<50 {
		return 0, fmt.Errorf("%q is no rate; give bytes a second such as 500K or 20M, or bits such as 100mbit, or off", text)
	}
	if n > 0 && n*factor < 1 {
		return 0, fmt.Errorf("%q is less than one byte", text)
	}
	return int64(n * factor), nil
}

// formatRate is the shortest text that ParseRate reads as n; "" for 0.
func formatRate(n int64) string {
	if n == 0 {
		return ""
	}
	for _, u := range []struct {
		suffix string
		size   int64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"gbit", 1e9 / 8}, {"mbit", 1e6 / 8}, {"kbit", 1e3 / 8}} {
		if n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

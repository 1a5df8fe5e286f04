package wan

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// rateUnits are those of tc: decimal, and bits.
var rateUnits = []struct {
	name string
	bits float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}}

// ParseRate reads "100Mbit", "1Gbit", "64kbit", "unlimited", into bytes a second.
func ParseRate(s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "unlimited" {
		return 0, nil
	}
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(strings.TrimSuffix(text, "/s"), u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || v <= 0 || v*u.bits/8 < 1 || v*u.bits > 1e13 {
			break
		}
		return int64(math.Round(v * u.bits / 8)), nil
	}
	return 0, fmt.Errorf("%q is not a rate; give a number with kbit, Mbit or Gbit, such as 100Mbit, or unlimited", s)
}

// FormatRate says a rate in bits a second.
func FormatRate(bytes int64) string {
	bits := float64(bytes) * 8
	switch {
	case bytes == 0:
		return "no rate limit"
	case bits >= 1e9:
		return fmt.Sprintf("%.4g Gbit/s", bits/1e9)
	case bits >= 1e6:
		return fmt.Sprintf("%.4g Mbit/s", bits/1e6)
	}
	return fmt.Sprintf("%.4g kbit/s", bits/1e3)
}

// ParsePercent reads "0.5%" into 0.005.
func ParsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || math.IsNaN(v) || v < 0 || v >= 100 {
		return 0, fmt.Errorf("%q is not a share; give 0%% to below 100%%, such as 0.5%%", s)
	}
	return v / 100, nil
}

// FormatPercent says 0.005 as 0.5%.
func FormatPercent(v float64) string { return strconv.FormatFloat(100*v, 'g', 4, 64) + "%" }

// ParseBytes reads "4096", "64K", "1M", "1G" (powers of 1024).
func ParseBytes(s string) (int64, error) {
	number, unit := strings.ToUpper(strings.TrimSpace(s)), int64(1)
	for i, suffix := range []string{"K", "M", "G"} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = rest, 1<<(10*(i+1))
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a number of bytes; give a whole number, with K, M or G where wanted", s)
	}
	return v * unit, nil
}

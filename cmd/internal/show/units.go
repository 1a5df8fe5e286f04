package show

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Bytes says a number of bytes with three digits or so: 0 B, 4.0 KiB, 1.2 GiB, 16 TiB.
func Bytes(n int64) string {
	if n > -1024 && n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), 0
	// At 1023.95 and above %.1f would print 1024.0 of a unit.
	for math.Abs(v) >= 1023.95 && unit < len(binaryUnits)-1 {
		v, unit = v/1024, unit+1
	}
	return threeDigits(v) + " " + binaryUnits[unit]
}

var binaryUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// threeDigits prints 1.2, 12.3, 123.
func threeDigits(v float64) string {
	if math.Abs(v) >= 99.95 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// Rate says bytes a second.
func Rate(bps float64) string { return Bytes(int64(math.Round(bps))) + "/s" }

// Seconds says a time span: 0 s, 0.25 s, 4.2 s, 1m12s, 3h04m, 2d05h.
func Seconds(s float64) string {
	switch {
	case s <= 0:
		return "0 s"
	case s < 1:
		return strconv.FormatFloat(s, 'f', 2, 64) + " s"
	case s < 59.95:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	case s > 1e9: // beyond time.Duration's reach when it is summed up, and beyond interest
		return "years"
	}
	d := time.Duration(s * float64(time.Second)).Round(time.Second)
	h, m, sec := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 24:
		return fmt.Sprintf("%dd%02dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	}
	return fmt.Sprintf("%dm%02ds", m, sec)
}

// Bar is a progress bar of width cells between brackets; done is between 0 and 1.
func Bar(done float64, width int) string {
	done = max(0, min(1, done)) // NaN fails both and is cut below
	full := int(done * float64(width))
	if full < 0 || full > width {
		full = 0
	}
	b := make([]byte, 0, width+2)
	b = append(b, '[')
	for i := range width {
		if i < full {
			b = append(b, '#')
		} else {
			b = append(b, '-')
		}
	}
	return string(append(b, ']'))
}

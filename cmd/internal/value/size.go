package value

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Size is a number of bytes, given as a number with one of the binary suffixes K, M, G, T.
type Size int64

var units = []struct {
	letter string
	bytes  int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// ParseSize reads "4096", "512M", "1.5G", "10GiB". The result is whole bytes, at least 0.
func ParseSize(s string) (Size, error) {
	number, unit, err := splitUnit(s)
	if err != nil {
		return 0, err
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, badSize(s)
	}
	r.Mul(r, new(big.Rat).SetInt64(unit))
	switch {
	case !r.IsInt():
		return 0, fmt.Errorf("%q is not a whole number of bytes", s)
	case !r.Num().IsInt64():
		return 0, fmt.Errorf("%q is too large", s)
	}
	return Size(r.Num().Int64()), nil
}

// splitUnit parts the digits from the suffix. big.Rat would also take 1/3 and 1e9, so the digits are checked here.
func splitUnit(s string) (number string, unit int64, err error) {
	number, unit = strings.ToUpper(strings.TrimSpace(s)), 1
	for _, u := range units {
		for _, suffix := range []string{u.letter + "IB", u.letter} {
			if rest, ok := strings.CutSuffix(number, suffix); ok {
				number, unit = rest, u.bytes
				break
			}
		}
		if unit != 1 {
			break
		}
		if strings.HasSuffix(number, u.letter+"B") {
			return "", 0, fmt.Errorf("%q: write %s for powers of 1024", s, u.letter)
		}
	}
	digits := strings.Replace(number, ".", "", 1)
	if digits == "" || strings.Trim(digits, "0123456789") != "" || strings.HasPrefix(number, ".") || strings.HasSuffix(number, ".") {
		return "", 0, badSize(s)
	}
	return number, unit, nil
}

func badSize(s string) error {
	return fmt.Errorf("%q is not a size; give bytes or a number with K, M, G or T, such as 512M or 1.5G", s)
}

// Set is pflag's way to ParseSize.
func (s *Size) Set(text string) error {
	v, err := ParseSize(text)
	if err == nil {
		*s = v
	}
	return err
}

// String is the shortest text that parses to the same size.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.letter
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Type names the value in the help text.
func (Size) Type() string { return "size" }

package wan

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds a profile file before it is read.
const maxFile = 1 << 20

// file is a profile as people write it.
type file struct {
	Name       string  `toml:"name"`
	Base       string  `toml:"base"` // a named profile that the rest changes
	RTT        *string `toml:"rtt"`
	Jitter     *string `toml:"jitter"`
	Rate       *string `toml:"rate"`
	Queue      *string `toml:"queue"`
	Loss       *string `toml:"loss"`
	Reorder    *string `toml:"reorder"`
	Congestion *string `toml:"congestion"`
	Seed       *uint64 `toml:"seed"`
	Repeat     *string `toml:"repeat"`
	Steps      []struct {
		At string `toml:"at"`
		Do string `toml:"do"`
	} `toml:"step"`
}

// Load reads a profile from a TOML file:
//
//	base = "wan"          # start from a named profile; all else is optional
//	rtt = "40ms"          # there and back
//	rate = "50Mbit"
//	jitter = "2ms"
//	loss = "0.1%"         # needs a line of packets: netem or tun
//	reorder = "0.5%"
//	queue = "256K"        # bytes that may wait; default: one bandwidth-delay product
//	congestion = "cubic"
//	seed = 7
//	repeat = "30s"
//
//	[[step]]              # see Step
//	at = "10s"
//	do = "stall"
func Load(path string) (Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return Profile{}, fmt.Errorf("link profile: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > maxFile {
		return Profile{}, fmt.Errorf("link profile %s: %d bytes are no profile", path, st.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Profile{}, fmt.Errorf("link profile: %w", err)
	}
	p, err := Parse(b)
	if err != nil {
		return Profile{}, fmt.Errorf("link profile %s: %w", path, err)
	}
	if p.Name == "" {
		p.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	return p, nil
}

// Parse reads a profile from the text of a file; see Load.
func Parse(text []byte) (Profile, error) {
	var f file
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Profile{}, explain(err)
	}
	var p Profile
	if f.Base != "" {
		var err error
		if p, err = Lookup(f.Base); err != nil {
			return Profile{}, fmt.Errorf("base: %w", err)
		}
		p.Name = ""
	}
	if err := f.fill(&p); err != nil {
		return Profile{}, err
	}
	return p, p.validate()
}

// explain names the line of what is wrong.
func explain(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: there is no key %s", row, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("line %d, column %d: %w", row, column, err)
	}
	return err
}

func (f *file) fill(p *Profile) error {
	p.Name = f.Name
	var rtt time.Duration
	var queue int64
	err := errors.Join(
		set(&rtt, f.RTT, "rtt", parseSpan),
		set(&p.Jitter, f.Jitter, "jitter", parseSpan),
		set(&p.Rate, f.Rate, "rate", ParseRate),
		set(&queue, f.Queue, "queue", ParseBytes),
		set(&p.Loss, f.Loss, "loss", ParsePercent),
		set(&p.Reorder, f.Reorder, "reorder", ParsePercent),
		set(&p.Repeat, f.Repeat, "repeat", parseSpan),
	)
	if f.RTT != nil {
		p.Delay = rtt / 2
	}
	if f.Queue != nil {
		p.Queue = int(queue)
	}
	if f.Congestion != nil {
		p.Congestion = *f.Congestion
	}
	if f.Seed != nil {
		p.Seed = *f.Seed
	}
	if f.Steps != nil {
		p.Script = nil
	}
	for i, s := range f.Steps {
		at, failed := parseSpan(s.At)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("step %d: at: %w", i+1, failed))
		}
		p.Script = append(p.Script, Step{At: at, Do: s.Do})
	}
	return err
}

// set parses a key that is there.
func set[T any](to *T, text *string, key string, parse func(string) (T, error)) error {
	if text == nil {
		return nil
	}
	v, err := parse(*text)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	*to = v
	return nil
}

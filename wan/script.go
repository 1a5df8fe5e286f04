package wan

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Step is something that happens to a line at a time since it was made. Do is
// one of
//
//	cut              connections are reset, new ones too
//	stall            bytes stop, connections stay
//	refuse           new connections are reset, old ones stay
//	heal             undoes the three
//	cut-after BYTES  a cut when so many more bytes have reached the target
//	rate RATE        from now on
//	delay DURATION   one way, from now on
//	jitter DURATION, loss PERCENT
type Step struct {
	At time.Duration
	Do string
}

// deed is a step that was understood.
type deed func(*Link) error

// change makes a deed of a change of the profile.
func change(f func(*Profile)) deed {
	return func(l *Link) error {
		p := l.Profile()
		f(&p)
		return l.SetProfile(p)
	}
}

func (s Step) parse() (deed, error) {
	verb, arg, _ := strings.Cut(strings.TrimSpace(s.Do), " ")
	arg = strings.TrimSpace(arg)
	plain := map[string]func(*Link){
		"cut":    (*Link).Cut,
		"heal":   (*Link).Heal,
		"stall":  func(l *Link) { l.Stall(true) },
		"refuse": func(l *Link) { l.Refuse(true) },
	}
	if f, ok := plain[verb]; ok && arg == "" {
		return func(l *Link) error { f(l); return nil }, nil
	}
	switch verb {
	case "cut-after":
		n, err := ParseBytes(arg)
		return func(l *Link) error { l.CutAfter(ToTarget, n); return nil }, err
	case "rate":
		v, err := ParseRate(arg)
		return change(func(p *Profile) { p.Rate = v }), err
	case "delay":
		v, err := parseSpan(arg)
		return change(func(p *Profile) { p.Delay = v }), err
	case "jitter":
		v, err := parseSpan(arg)
		return change(func(p *Profile) { p.Jitter = v }), err
	case "loss":
		v, err := ParsePercent(arg)
		return change(func(p *Profile) { p.Loss = v }), err
	}
	return nil, fmt.Errorf("%q is nothing that happens to a line; there are cut, heal, stall, refuse, cut-after BYTES, rate RATE, delay DURATION, jitter DURATION, loss PERCENT", s.Do)
}

func parseSpan(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; give such as 25ms or 1.5s", s)
	}
	return d, nil
}

func (p Profile) checkScript() error {
	last := time.Duration(0)
	for i, s := range p.Script {
		if _, err := s.parse(); err != nil {
			return fmt.Errorf("link profile %q: step %d: %w", p.Name, i+1, err)
		}
		if s.At < last {
			return fmt.Errorf("link profile %q: step %d at %s comes before the one above it", p.Name, i+1, s.At)
		}
		last = s.At
	}
	if p.Repeat < 0 || p.Repeat > 0 && (len(p.Script) == 0 || p.Repeat < last) {
		return fmt.Errorf("link profile %q: repeat %s does not cover the script's steps", p.Name, p.Repeat)
	}
	return nil
}

// script says the steps in a line.
func (p Profile) script() string {
	var parts []string
	for _, s := range p.Script {
		parts = append(parts, fmt.Sprintf("%s %s", s.At, s.Do))
	}
	text := strings.Join(parts, ", ")
	if p.Repeat > 0 {
		text += fmt.Sprintf(", again each %s", p.Repeat)
	}
	return text
}

// Play does to the link what its profile's script says, from now on, until
// the script or ctx ends. told hears of each step; it may be nil. A rate or
// a delay that a step sets stays until another step sets it.
func (l *Link) Play(ctx context.Context, told func(Step)) error {
	p := l.Profile()
	start := time.Now()
	for {
		for _, s := range p.Script {
			do, err := s.parse()
			if err != nil {
				return err
			}
			if !sleepUntil(ctx, start.Add(s.At)) {
				return ctx.Err()
			}
			if err := do(l); err != nil {
				return err
			}
			if told != nil {
				told(s)
			}
		}
		if p.Repeat == 0 {
			return nil
		}
		start = start.Add(p.Repeat)
	}
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

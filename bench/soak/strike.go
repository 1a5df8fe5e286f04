package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"cawrm/bench/internal/site"
)

// strike kills one daemon or both, and looks at what survived.
func (r *runner) strike() error {
	r.nextKill = time.Now().Add(r.between(1, 4))
	// What the life showed counts also when it was a short one.
	for _, s := range []*site.Site{r.source, r.mirror} {
		if len(r.life[s]) == 0 {
			continue
		}
		if _, wrong := judge(r.life[s]); len(wrong) > 0 {
			return errors.New(strings.Join(wrong, "\n"))
		}
	}
	switch n := r.rng.IntN(5); {
	case n < 2:
		return r.named("source", r.sourceKilled)
	case n < 4:
		return r.named("mirror", r.mirrorKilled)
	}
	return r.named("both", r.bothAnew)
}

func (r *runner) named(who string, kill func() error) error {
	r.sum.Kills[who]++
	if err := r.j.event("SIGKILL: %s", who); err != nil {
		return err
	}
	if err := kill(); err != nil {
		return fmt.Errorf("after SIGKILL of %s: %w\nlog of the source:\n%s\nlog of the mirror:\n%s", who, err, r.source.Log(), r.mirror.Log())
	}
	return nil
}

func (r *runner) sourceKilled() error {
	r.source.Kill()
	if err := errors.Join(r.died(), r.checkMirror()); err != nil {
		return err
	}
	if err := r.start(r.source); err != nil {
		return err
	}
	return errors.Join(r.checkSource(), r.begin())
}

// mirrorKilled lets the load go on meanwhile.
func (r *runner) mirrorKilled() error {
	r.mirror.Kill()
	time.Sleep(r.between(0, 0.1))
	return r.start(r.mirror)
}

// bothAnew kills both and lets the load begin again.
func (r *runner) bothAnew() error {
	r.mirror.Kill()
	r.source.Kill()
	if err := r.died(); err != nil {
		return err
	}
	if err := r.revive(); err != nil {
		return err
	}
	return r.begin()
}

// bothKilled is the same without a load.
func (r *runner) bothKilled() error {
	r.mirror.Kill()
	r.source.Kill()
	return r.revive()
}

// revive starts both, and looks at each before the other can change it.
func (r *runner) revive() error {
	if err := r.start(r.mirror); err != nil {
		return err
	}
	if err := r.checkMirror(); err != nil {
		return err
	}
	if err := r.start(r.source); err != nil {
		return err
	}
	return r.checkSource()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// summary is the last line of the journal.
type summary struct {
	Kind     string                      `json:"kind"`
	Seconds  float64                     `json:"seconds"`
	OK       bool                        `json:"ok"`
	Error    string                      `json:"error,omitempty"`
	Kills    map[string]int              `json:"kills"`
	Cuts     int                         `json:"cuts"`
	Audits   int                         `json:"audits"` // whole images of both sites compared, without a kill
	Samples  int                         `json:"samples"`
	Requests int64                       `json:"requests"`
	Written  int64                       `json:"written"`
	SHA256   string                      `json:"sha256"`         // of both sites, at the end
	Judged   float64                     `json:"judged_seconds"` // length of the life in which growth was judged
	Trends   map[string]map[string]trend `json:"trends"`         // of that life, by site and figure
}

// soak runs it all and writes the summary, also when it fails.
func soak(ctx context.Context, c config, dir string, j *journal) error {
	w, err := newWorld(ctx, c, dir, j)
	if err != nil {
		return err
	}
	defer w.close()
	sum := summary{Kind: "summary", Kills: map[string]int{}, Trends: map[string]map[string]trend{}}
	r := &runner{world: w, c: c, sum: &sum, unit: min(max(c.duration()/60, time.Second), time.Minute)}
	err = r.run()
	sum.Seconds, sum.Requests, sum.Written, sum.OK = j.seconds(), w.load.Requests.Load(), w.load.Written.Load(), err == nil
	if err != nil {
		sum.Error = err.Error()
	}
	if e := j.write(sum); e != nil {
		return errors.Join(err, e)
	}
	if err == nil {
		r.say()
	}
	return err
}

// runner follows the plan. The unit of time is a sixtieth of the whole, from a second to a minute.
type runner struct {
	*world
	c    config
	sum  *summary
	unit time.Duration

	nextSample, nextLine, nextKill, nextAudit time.Time
	heal                                      bool // what nextLine does
}

// between is a random multiple of the unit.
func (r *runner) between(least, most float64) time.Duration {
	return time.Duration((least + r.rng.Float64()*(most-least)) * float64(r.unit))
}

func (r *runner) run() error {
	err := r.j.event("seed %d: %s over %.3f hours", r.c.seed, line, r.c.hours)
	if err == nil {
		err = r.start(r.mirror)
	}
	if err == nil {
		err = r.start(r.source)
	}
	if err == nil {
		err = r.begin()
	}
	if err != nil {
		return err
	}
	now := time.Now()
	half, end := now.Add(r.c.duration()/2), now.Add(r.c.duration())
	r.nextSample, r.nextLine, r.nextKill, r.nextAudit = now, now.Add(r.between(0.5, 1.5)), now.Add(r.between(1, 3)), now.Add(5*r.unit)
	if err := r.until(half, r.strike); err != nil {
		return err
	}
	judged := time.Now()
	if err := r.named("both", r.bothAnew); err != nil {
		return err
	}
	if err := r.until(end, nil); err != nil {
		return err
	}
	r.sum.Judged = time.Since(judged).Seconds()
	return r.finish()
}

// until does what is due, one after the other, until then.
func (r *runner) until(then time.Time, kill func() error) error {
	for {
		due, do := r.nextSample, r.takeSample
		if r.nextLine.Before(due) {
			due, do = r.nextLine, r.changeLine
		}
		if r.nextAudit.Before(due) {
			due, do = r.nextAudit, r.audit
		}
		if kill != nil && r.nextKill.Before(due) {
			due, do = r.nextKill, kill
		}
		if !due.Before(then) {
			due, do = then, nil
		}
		select {
		case <-r.ctx.Done():
			return errors.New("interrupted")
		case err := <-r.ended:
			return fmt.Errorf("the load ended by itself: %w\n%s", err, r.source.Log())
		case <-time.After(time.Until(due)):
		}
		if do == nil {
			return nil
		}
		if err := do(); err != nil {
			return err
		}
	}
}

func (r *runner) takeSample() error {
	r.nextSample = time.Now().Add(max(r.unit/2, time.Second))
	r.sum.Samples++
	return r.sample()
}

// changeLine breaks the line in one of three ways, or heals it.
func (r *runner) changeLine() error {
	if r.heal {
		return r.healed()
	}
	r.heal, r.lineUp = true, false
	r.nextLine = time.Now().Add(r.between(0.05, 0.5))
	r.sum.Cuts++
	switch r.rng.IntN(3) {
	case 0:
		r.link.Cut()
		return r.j.event("line cut")
	case 1:
		n := 1 + r.rng.Int64N(1<<20)
		r.link.CutAfter(wan.ToTarget, n)
		return r.j.event("line cut after %d bytes", n)
	}
	r.link.Stall(true)
	return r.j.event("line stalled")
}

func (r *runner) healed() error {
	r.link.Heal()
	r.heal, r.lineUp = false, true
	r.nextLine = time.Now().Add(r.between(0.5, 1.5))
	return r.j.event("line healed")
}

// audit compares both sites with the record and with each other, without hurting anybody.
func (r *runner) audit() error {
	r.nextAudit = time.Now().Add(5 * r.unit)
	r.sum.Audits++
	if err := r.end(); err != nil {
		return err
	}
	if err := r.equal(); err != nil {
		return err
	}
	return r.begin()
}

// equal flushes, waits for the mirror, and reads both sites.
func (r *runner) equal() error {
	if err := r.healed(); err != nil {
		return err
	}
	c, err := r.source.Dial(r.ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	event := r.oracle.BeginFlush()
	if err := c.Flush(); err != nil {
		return err
	}
	r.oracle.Flushed(event)
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Minute)
	defer cancel()
	if err := r.source.WaitSynced(ctx); err != nil {
		return err
	}
	if err := errors.Join(r.checkMirror(), r.checkSource()); err != nil {
		return err
	}
	a, err := r.image(r.source)
	if err != nil {
		return err
	}
	b, err := r.image(r.mirror)
	if err != nil {
		return err
	}
	if a.Sum != b.Sum {
		return fmt.Errorf("the mirror differs: sha256 %x, the source %x", b.Sum, a.Sum)
	}
	r.sum.SHA256 = fmt.Sprintf("%x", a.Sum)
	return r.j.event("both sites hold %s", r.sum.SHA256[:16])
}

// finish ends the long life: sites equal, killed, recovered, equal still, stopped, checked.
func (r *runner) finish() error {
	if err := errors.Join(r.end(), r.equal()); err != nil {
		return err
	}
	var wrong []string
	for name, s := range map[string]*site.Site{"source": r.source, "mirror": r.mirror} {
		trends, w := judge(r.life[s])
		r.sum.Trends[name] = trends
		wrong = append(wrong, w...)
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	if err := errors.Join(r.named("both", r.bothKilled), r.equal()); err != nil {
		return err
	}
	for _, s := range []*site.Site{r.source, r.mirror} {
		if err := errors.Join(s.Stop(), s.Check()); err != nil {
			return err
		}
	}
	return r.j.event("both stopped and checked")
}

// say prints the summary for people.
func (r *runner) say() {
	s := r.sum
	fmt.Fprintf(os.Stdout, "soak: %.0f s, %d requests, %.1f GB written, kills %v, %d cuts, %d audits; growth judged over %.0f s\n",
		s.Seconds, s.Requests, float64(s.Written)/1e9, s.Kills, s.Cuts, s.Audits, s.Judged)
	for site, trends := range s.Trends {
		for name, t := range trends {
			fmt.Fprintf(os.Stdout, "  %-7s %-11s %12d -> %12d, at most %12d\n", site, name, t.First, t.Last, t.Most)
		}
	}
}

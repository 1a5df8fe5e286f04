package daemon

import (
	"context"
	"fmt"
	"time"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/metric"
	"cawrm/cmd/internal/plan"
	"cawrm/nbdsrv"
)

// measured is a device whose requests are timed: two readings of the clock and two additions each.
type measured struct {
	nbdsrv.Device
	try nbdsrv.Nonblocking
	nbdsrv.Counting
	took *metric.Requests
	slow func(op string, d time.Duration) // nil, or told of what took longer than objective
	// objective is compared only where slow is set.
	objective time.Duration
}

func (m measured) done(op metric.Operation, start time.Time) {
	d := time.Since(start)
	m.took[op].Observe(d)
	if m.slow != nil && d > m.objective {
		m.slow(metric.Operations[op], d)
	}
}

// tried counts a call that did not have to wait; one that would wait is made again, and counted then.
func (m measured) tried(op metric.Operation, start time.Time, err error) error {
	if err != nbdsrv.ErrWouldBlock { //nolint:errorlint // returned bare
		m.done(op, start)
	}
	return err
}

func (m measured) TryReadAt(p []byte, off int64) error {
	return m.tried(metric.Read, time.Now(), m.try.TryReadAt(p, off))
}

func (m measured) TryWriteAt(p []byte, off int64) error {
	return m.tried(metric.Write, time.Now(), m.try.TryWriteAt(p, off))
}

func (m measured) ReadAt(p []byte, off int64) error {
	defer m.done(metric.Read, time.Now())
	return m.Device.ReadAt(p, off)
}

func (m measured) WriteAt(p []byte, off int64, fua bool) error {
	defer m.done(metric.Write, time.Now())
	return m.Device.WriteAt(p, off, fua)
}

func (m measured) Flush() error {
	defer m.done(metric.Flush, time.Now())
	return m.Device.Flush()
}

func (m measured) Trim(off, n int64, fua bool) error {
	defer m.done(metric.Trim, time.Now())
	return m.Device.Trim(off, n, fua)
}

func (m measured) WriteZeroes(off, n int64, noHole, fua bool) error {
	defer m.done(metric.Zero, time.Now())
	return m.Device.WriteZeroes(off, n, noHole, fua)
}

// measure makes the requests of an export's device count, and those that take too long known.
func (d *daemon) measure(e nbdsrv.Export, took *metric.Requests) nbdsrv.Export {
	m := measured{Device: e.Device, Counting: e.Device.(nbdsrv.Counting), took: took, objective: d.cfg.Objective}
	if d.flight != nil {
		m.slow = d.flight.Slow
	}
	m.try = e.Device.(nbdsrv.Nonblocking) // as device.go ensures
	e.Device = m
	return e
}

// requests are the durations of each volume's requests.
func (d *daemon) requests() map[string]*metric.Requests {
	all := map[string]*metric.Requests{}
	for _, v := range d.volumes() {
		if v.err == nil {
			all[v.cfg.Name] = &v.took
		}
	}
	return all
}

// plan is the command plan.
func (d *daemon) plan(_ context.Context, r control.PlanRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	for _, rate := range r.Rates {
		if rate <= 0 {
			return nil, fmt.Errorf("plan: a line of %d bytes a second carries nothing", rate)
		}
	}
	return plan.Make(v.volume, r.Rates)
}

// nbdStats are those of all servers together.
func (d *daemon) nbdStats() (sum nbdsrv.Stats) {
	for _, s := range d.nbdServers() {
		sum = sum.Plus(s.Stats())
	}
	return sum
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/plan"
	"cawrm/cmd/internal/show"
)

type planFlags struct {
	control controlFlag
	rates   []string
	json    jsonFlag
}

func newPlan() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan NAME|PATH",
		Short: "Say what lag and what retention to expect, from a volume's own writes and a line's rate",
		Long: `Read when what was written from the volume's log, and say how far a mirror would have been behind over a line of each --rate,
which rate keeps which lag, and what a day of history takes. NAME is a volume of the running daemon, PATH a container that
nobody serves.

The forecast is the worst case: every write is sent as it is. Compression makes it less, and so does that a mirror far behind
gets each chunk once. It is only as good as the time that the log covers.`,
		Example: `  cawrm plan db --rate 100mbit --rate 1gbit
  cawrm plan disk.img --json`,
		Args: exactArgs("NAME or PATH"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	f.control.add(c)
	c.Flags().StringArrayVar(&f.rates, "rate", nil, "`rate` of a line, as 20M (bytes a second) or 100mbit; repeatable")
	f.json.add(c)
	return c
}

func (f *planFlags) run(c *cobra.Command, what string) error {
	var rates []int64
	for _, text := range f.rates {
		r, err := cawrm.ParseRate(text)
		if err == nil && r == 0 {
			err = errors.New("--rate 0: a line carries something")
		}
		if err != nil {
			return usageError{err}
		}
		rates = append(rates, r)
	}
	r, err := f.make(what, rates)
	if err != nil {
		return err
	}
	if f.json {
		return printJSON(c, r)
	}
	return printPlan(c.OutOrStdout(), r)
}

// make asks the daemon, or reads a container.
func (f *planFlags) make(what string, rates []int64) (r plan.Report, err error) {
	if st, err := os.Stat(what); err == nil && !st.IsDir() || strings.Contains(what, "/") {
		v, err := aodi.Open(what, aodi.Options{})
		if err != nil {
			return r, err
		}
		r, err := plan.Make(v, rates)
		return r, errors.Join(err, v.Close())
	}
	err = ask(&f.control, func(ctx context.Context, client *control.Client) error {
		return client.Call(ctx, "plan", control.PlanRequest{Volume: what, Rates: rates}, &r)
	})
	return r, err
}

func printPlan(w io.Writer, r plan.Report) error {
	var b strings.Builder
	span := r.To.Sub(r.From)
	since := ""
	if r.Complete {
		since = ", all there ever was"
	}
	fmt.Fprintf(&b, "the log covers %s, %s to %s%s\n", show.Seconds(span.Seconds()), r.From.UTC().Format(time.DateTime), r.To.UTC().Format(time.DateTime), since)
	fmt.Fprintf(&b, "written      %s, %s of chunks that differ; at that pace %s a day\n", show.Bytes(r.Bytes), show.Bytes(r.Unique), show.Bytes(r.PerDay))
	fmt.Fprintf(&b, "retention    a history of 24 h takes up to %s, one of 7 days up to %s\n", show.Bytes(r.PerDay), show.Bytes(7*r.PerDay))
	for _, p := range r.Least {
		fmt.Fprintf(&b, "lag <= %-5s a line of %s (%s) keeps it\n", show.Seconds(p.Seconds), show.Rate(float64(p.Rate)), bits(p.Rate))
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "\nover %s (%s)\n", show.Rate(float64(l.Rate)), bits(l.Rate))
		if !l.Keeps {
			b.WriteString("  it does not carry what is written on average: the lag grows until the mirror is brought up by jump epochs\n")
		}
		fmt.Fprintf(&b, "  lag at most      %s, %s\n  99 %% of the time below %s; more than a second in %.1f %% of it\n",
			show.Seconds(l.MaxSeconds), show.Bytes(l.MaxBytes), show.Seconds(l.P99Seconds), 100*l.BehindShare)
		if l.Outage >= 0 {
			fmt.Fprintf(&b, "  an hour without the line is caught up in %s\n", show.Seconds(l.Outage))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bits says a rate as networks count it.
func bits(bytes int64) string {
	switch b := float64(bytes) * 8; {
	case b >= 1e9:
		return fmt.Sprintf("%.1f Gbit/s", b/1e9)
	case b >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", b/1e6)
	default:
		return fmt.Sprintf("%.1f kbit/s", b/1e3)
	}
}

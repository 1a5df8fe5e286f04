package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"cawrm/wan"
)

// printWan is the table of wan show: what was measured stands behind what is asked, with their ratio.
func printWan(out io.Writer, rows []wanRow, measured bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "PROFILE\tROUND TRIP\tJITTER\tRATE\tLOSS")
	if measured {
		fmt.Fprint(w, "\tMADE BY\tCONGESTION\tMEASURED ROUND TRIP\tMEASURED RATE")
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		p := r.profile
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s", r.Name, 2*p.Delay, p.Jitter, wan.FormatRate(p.Rate), wan.FormatPercent(p.Loss))
		if measured {
			fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", r.Mode, r.Congestion, r.delay(), r.rate())
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Mode != "" && r.Mode != string(wan.Relay) && r.LossShare > 0 {
			fmt.Fprintf(out, "\n%s: with loss the rate is what %s makes of the line\n", r.Name, r.Congestion)
		}
		if len(r.profile.Script) > 0 {
			fmt.Fprintf(out, "\n%s\n", r.profile)
		}
		if r.Mode == string(wan.Relay) && (r.LossShare > 0 || r.Reorder > 0) {
			fmt.Fprintf(out, "\n%s: the relay has no loss and no reordering; --mode netem or tun, as root, has both\n", r.Name)
		}
	}
	return nil
}

func (r *wanRow) delay() string {
	got := time.Duration(r.MeasuredRTT * float64(time.Second)).Round(10 * time.Microsecond)
	want := 2*r.profile.Delay + r.profile.Jitter // each way half of it on average
	if want == 0 {
		return got.String()
	}
	return fmt.Sprintf("%s (%+.1f%%)", got, 100*(r.MeasuredRTT/want.Seconds()-1))
}

func (r *wanRow) rate() string {
	text := wan.FormatRate(int64(r.MeasuredBps / 8))
	if r.RateBps == 0 {
		return text
	}
	return fmt.Sprintf("%s (%+.1f%%)", text, 100*(r.MeasuredBps/r.RateBps-1))
}

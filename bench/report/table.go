package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Number has three digits or so.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a < 0.01:
		return strconv.FormatFloat(v, 'g', 2, 64)
	case a < 1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// Table writes the experiment for a terminal.
func (e *Experiment) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s (%s)\n", e.Title, e.Unit)
	if e.Link != "" {
		fmt.Fprintf(w, "  line: %s\n", e.line())
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "  %s\t%s\t\n", e.X, strings.Join(e.series(), "\t"))
	for _, x := range e.xs() {
		fmt.Fprintf(t, "  %s\t", x)
		for _, s := range e.series() {
			if v, ok := e.Get(s, x); ok {
				fmt.Fprint(t, Number(v))
			} else {
				fmt.Fprint(t, "-")
			}
			fmt.Fprint(t, "\t")
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if e.Claim != "" {
		fmt.Fprintf(w, "  %s: %s\n", e.claimant(), e.Claim)
	}
	if e.Note != "" {
		fmt.Fprintf(w, "  note: %s\n", e.Note)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// better says the unit, and which way is better where the rows agree on that.
func (e *Experiment) better() string {
	switch {
	case e.Mixed:
		return "Units are those of the rows"
	case e.Lower:
		return e.Unit + "; lower is better"
	}
	return e.Unit + "; higher is better"
}

// claimant is who claims.
func (e *Experiment) claimant() string {
	switch {
	case strings.HasPrefix(e.Name, "paper/"):
		return "the paper"
	case strings.HasPrefix(e.Name, "seeds/"):
		return "their paper"
	}
	return "wanted"
}

// line says the line between the sites, how it is made, and the congestion control.
func (e *Experiment) line() string {
	s := e.Link
	if e.LinkMode != "" {
		s += "; made by " + e.LinkMode
	}
	if e.Congestion != "" {
		s += "; congestion control " + e.Congestion
	}
	return s
}

// Markdown writes the experiment as a section of a document.
func (e *Experiment) Markdown(w io.Writer) error {
	fmt.Fprintf(w, "### %s\n\n", e.Title)
	if e.Claim != "" {
		fmt.Fprintf(w, "%s: %s.\n\n", strings.ToUpper(e.claimant()[:1])+e.claimant()[1:], e.Claim)
	}
	fmt.Fprintf(w, "| %s | %s |\n|%s\n", e.X, strings.Join(e.series(), " | "), strings.Repeat("---|", 1+len(e.series())))
	for _, x := range e.xs() {
		fmt.Fprintf(w, "| %s |", x)
		for _, s := range e.series() {
			if v, ok := e.Get(s, x); ok {
				fmt.Fprintf(w, " %s |", Number(v))
			} else {
				fmt.Fprint(w, " - |")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n%s. ", e.better())
	if n := e.Rounds(); n > 1 {
		fmt.Fprintf(w, "Medians of %d alternating rounds. ", n)
	}
	if e.Link != "" {
		fmt.Fprintf(w, "Line: %s. ", e.line())
	}
	if e.Note != "" {
		fmt.Fprintf(w, "%s ", strings.TrimSuffix(e.Note, ".")+".")
	}
	load := ""
	if e.Load > 0 {
		load = fmt.Sprintf(", load average %.0f before", e.Load)
	}
	_, err := fmt.Fprintf(w, "Commit %s, %s, %s%s; `%s`.\n\n", e.Commit, day(e.Time), e.Machine, load, strings.Join(e.Command, " "))
	return err
}

package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Change is one point in two results files.
type Change struct {
	Name, Series, X, Unit string
	A, B                  float64 // medians
	Ratio                 float64 // B over A
	Verdict               string  // "better", "worse", "same": the repetitions of the two overlap
}

// Diff compares the newest of each experiment that both have, point by point.
func Diff(a, b []*Experiment) (changes []Change) {
	old := map[string]*Experiment{}
	for _, e := range Newest(a) {
		old[e.Name] = e
	}
	for _, e := range Newest(b) {
		was := old[e.Name]
		if was == nil {
			continue
		}
		for _, p := range e.Points {
			i := slices.IndexFunc(was.Points, func(q Point) bool { return q.Series == p.Series && q.X == p.X })
			if i < 0 {
				continue
			}
			q := was.Points[i]
			c := Change{Name: e.Name, Series: p.Series, X: p.X, Unit: e.Unit, A: q.Median, B: p.Median, Verdict: verdict(q, p, e.Lower)}
			if q.Median != 0 {
				c.Ratio = p.Median / q.Median
			}
			changes = append(changes, c)
		}
	}
	return changes
}

// verdict calls a change one only when no repetition of the one lies within those of the other.
func verdict(was, is Point, lower bool) string {
	if len(was.Repetitions) == 0 || len(is.Repetitions) == 0 {
		return "same"
	}
	higher := slices.Min(is.Repetitions) > slices.Max(was.Repetitions)
	less := slices.Max(is.Repetitions) < slices.Min(was.Repetitions)
	switch {
	case higher && !lower, less && lower:
		return "better"
	case higher, less:
		return "worse"
	}
	return "same"
}

// PrintDiff writes a table of changes.
func PrintDiff(w io.Writer, changes []Change) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "EXPERIMENT\tROW\tSERIES\tUNIT\tA\tB\tB/A\tVERDICT")
	for _, c := range changes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\n", c.Name, c.X, c.Series, c.Unit, Number(c.A), Number(c.B), c.Ratio, c.Verdict)
	}
	return t.Flush()
}

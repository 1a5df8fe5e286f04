package recovery

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"cawrm/aodi/format"
)

// Rule is the number of an invariant of the package doc: 7 is C7.
type Rule int

const lastRule Rule = 22

// String is the rule's name in the package doc.
func (r Rule) String() string { return fmt.Sprintf("C%d", int(r)) }

// Violation is one place where a rule does not hold.
type Violation struct {
	Rule Rule
	Text string // place and what is wrong there, one line
}

// Counts is what a check counted, whether or not it agrees with what the container says.
type Counts struct {
	Segments  uint64 // ever used
	Free      uint64
	Open      uint64
	Sealed    uint64
	Live      uint64 // referenced chunks, pages included
	Mapped    uint64 // logical chunks that are not holes
	Pages     uint64 // pages of the forward map, of snapshots and of the segment tree
	Batches   uint64 // below the checkpoint
	Verified  uint64 // bytes of mapped data whose checksum was compared
	Passes    int    // over the forward map; more than one when the container is larger than the memory budget
	ReadBytes uint64
}

// Report is what a check found. Made by Check, immutable afterwards.
type Report struct {
	Name       string
	Container  *Container
	Catalog    format.Catalog
	Counts     Counts
	Rolled     Rolled
	RolledEnd  format.Position // end of the log with what rolls forward
	Quick      bool
	Notes      []string    // what is worth knowing and breaks no rule
	Violations []Violation // in the order of the rules, at most CheckOptions.MaxLines a rule
	Broken     map[Rule]int
	Duration   time.Duration

	maxLines int
}

// OK tells whether every rule that was looked at holds.
func (r *Report) OK() bool { return len(r.Broken) == 0 }

// Total is the number of violations, also of those that are not listed.
func (r *Report) Total() int {
	n := 0
	for _, k := range r.Broken {
		n += k
	}
	return n
}

func (r *Report) bad(rule Rule, text string, args ...any) {
	r.Broken[rule]++
	if r.Broken[rule] <= r.maxLines {
		r.Violations = append(r.Violations, Violation{rule, fmt.Sprintf(text, args...)})
	}
}

func (r *Report) note(text string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(text, args...))
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return int(a.Rule - b.Rule) })
}

// Print writes the report for people. Errors: w's.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	m, n := &r.Container.Meta, &r.Counts
	fmt.Fprintf(t, "container\t%s\n", r.Name)
	fmt.Fprintf(t, "checkpoint\t%d at position %s, %s\n", m.Seq, position(m.Position), when(m.Time))
	fmt.Fprintf(t, "segments\t%d of %s: %d sealed, %d open, %d free\n", n.Segments, size(r.Container.Geo.SegmentBytes()), n.Sealed, n.Open, n.Free)
	fmt.Fprintf(t, "mapped\t%d chunks, %s of %s\n", n.Mapped, size(int64(n.Mapped)*format.ChunkSize), size(m.Size))
	fmt.Fprintf(t, "live\t%d chunks, of these %d map pages\n", n.Live, n.Pages)
	fmt.Fprintf(t, "log\t%s\n", rollLine(&r.Rolled, r.RolledEnd))
	verified := size(int64(n.Verified)) + " of data compared with their checksums"
	if r.Quick {
		verified = "no data read (quick)"
	}
	fmt.Fprintf(t, "verified\t%s; %d batches; %s read in %s\n", verified, n.Batches, size(int64(n.ReadBytes)), r.Duration.Round(time.Millisecond))
	for _, line := range r.Notes {
		fmt.Fprintf(t, "note\t%s\n", line)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.printVerdict(w)
}

// rollLine says what a roll found.
func rollLine(g *Rolled, end format.Position) string {
	s := fmt.Sprintf("%d batches with %d records roll forward to position %s", g.Batches, g.Records, position(end))
	if g.Void > 0 {
		s += fmt.Sprintf(", %d uncommitted ones do not", g.Void)
	}
	if g.Stop != nil {
		s += fmt.Sprintf("; it ends at segment %d chunk %d, where nothing follows (%v)", g.Log.Segment, g.Log.Chunk, g.Stop)
	}
	return s
}

func (r *Report) printVerdict(w io.Writer) error {
	if r.OK() {
		_, err := fmt.Fprintf(w, "\nOK: all %d rules hold\n", r.rules())
		return err
	}
	fmt.Fprintln(w)
	for i, v := range r.Violations {
		if _, err := fmt.Fprintf(w, "%-4s %s\n", v.Rule, v.Text); err != nil {
			return err
		}
		last := i+1 == len(r.Violations) || r.Violations[i+1].Rule != v.Rule
		if more := r.Broken[v.Rule] - r.maxLines; last && more > 0 {
			fmt.Fprintf(w, "%-4s ... and %d more\n", v.Rule, more)
		}
	}
	_, err := fmt.Fprintf(w, "\nDAMAGED: %d violations of %d of %d rules\n", r.Total(), len(r.Broken), r.rules())
	return err
}

func (r *Report) rules() int {
	if r.Quick {
		return int(lastRule) - 1
	}
	return int(lastRule)
}

// position writes a position, alike in every line.
func position(p format.Position) string { return fmt.Sprintf("%d", uint64(p)) }

func when(ns int64) string {
	if ns == 0 {
		return "no time"
	}
	return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000 UTC")
}

// size writes bytes in the largest binary unit that keeps the number short.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if f == float64(int64(f)) {
		return fmt.Sprintf("%d %ciB", int64(f), units[u])
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}

package report

import (
	"slices"
	"time"
)

// Experiment is one figure: a table of points, each of one series at one place of the x axis.
type Experiment struct {
	Name    string    `json:"name"` // "paper/7-size": stable, what diff joins by
	Title   string    `json:"title"`
	Time    time.Time `json:"time"`
	Commit  string    `json:"commit"`
	Machine Machine   `json:"machine"`
	Command []string  `json:"command"`
	Load    float64   `json:"load,omitempty"` // load average of the minute before

	Link       string `json:"link,omitempty"` // the line between the sites
	LinkMode   string `json:"link_mode,omitempty"`
	Congestion string `json:"congestion,omitempty"`

	X      string  `json:"x"`    // what the rows are
	Unit   string  `json:"unit"` // of the values
	Lower  bool    `json:"lower_is_better,omitempty"`
	Lines  bool    `json:"lines,omitempty"`       // the x axis is a number: draw lines, not bars
	Mixed  bool    `json:"mixed_units,omitempty"` // each row has a unit of its own
	Claim  string  `json:"claim,omitempty"`       // what the paper, or the issue, says of it
	Note   string  `json:"note,omitempty"`        // what the figures do not show
	Points []Point `json:"points"`
}

// Point is one value, with all its repetitions.
type Point struct {
	Series      string    `json:"series"`
	X           string    `json:"x"`
	At          float64   `json:"at,omitempty"` // x as a number
	Median      float64   `json:"median"`
	Repetitions []float64 `json:"repetitions"`
}

// Add adds a repetition to the point of that series and x.
func (e *Experiment) Add(series, x string, at, value float64) {
	i := slices.IndexFunc(e.Points, func(p Point) bool { return p.Series == series && p.X == x })
	if i < 0 {
		e.Points = append(e.Points, Point{Series: series, X: x, At: at})
		i = len(e.Points) - 1
	}
	p := &e.Points[i]
	p.Repetitions = append(p.Repetitions, value)
	p.Median = Median(p.Repetitions)
}

// Get is the median of a point.
func (e *Experiment) Get(series, x string) (float64, bool) {
	for _, p := range e.Points {
		if p.Series == series && p.X == x {
			return p.Median, true
		}
	}
	return 0, false
}

// Rounds is the smallest number of repetitions of a point.
func (e *Experiment) Rounds() int {
	n := 0
	for i, p := range e.Points {
		if i == 0 || len(p.Repetitions) < n {
			n = len(p.Repetitions)
		}
	}
	return n
}

// xs and series are the rows and columns, in the order in which they came.
func (e *Experiment) xs() []string { return distinct(e.Points, func(p Point) string { return p.X }) }
func (e *Experiment) series() []string {
	return distinct(e.Points, func(p Point) string { return p.Series })
}

func distinct(points []Point, key func(Point) string) (keys []string) {
	for _, p := range points {
		if k := key(p); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// Median is the middle of the values; 0 of none.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	switch {
	case n == 0:
		return 0
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[n/2]
}

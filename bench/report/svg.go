package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart's measures.
const (
	chartW, chartH       = 720, 300
	left, right          = 64, 30
	top, bottom          = 34, 44
	plotW, plotH         = chartW - left - right, chartH - top - bottom
	legendX, legendSpace = left, 150
)

// Colours that can be told apart by most eyes (Okabe and Ito).
var colours = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000"}

// SVG draws the experiment; it needs nothing from outside. Of rows with units of their own there is nothing to draw.
func (e *Experiment) SVG() string {
	if e.Mixed {
		return ""
	}
	if e.longLabels() {
		return e.rows()
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" role="img" font-family="sans-serif" font-size="12">`, chartW, chartH, chartW)
	fmt.Fprintf(&b, "<title>%s</title>", html.EscapeString(e.Title))
	highest := 0.0
	for _, p := range e.Points {
		highest = max(highest, p.Median)
	}
	step, ceiling := ticks(highest)
	y := func(v float64) float64 { return top + plotH*(1-v/ceiling) }
	for v := 0.0; v <= ceiling*1.0001; v += step {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`, left, left+plotW, y(v), y(v))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, left-6, y(v)+4, Number(v))
	}
	e.legend(&b)
	if e.Lines {
		e.drawLines(&b, y)
	} else {
		e.drawBars(&b, y)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`, left+plotW/2, chartH-6, html.EscapeString(e.X))
	fmt.Fprintf(&b, `<text x="14" y="%d" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text></svg>`, top+plotH/2, top+plotH/2, html.EscapeString(e.Unit))
	return b.String()
}

func colour(i int) string { return colours[i%len(colours)] }

// ticks finds a round step of at most five to the highest value, and where the axis ends.
func ticks(highest float64) (step, ceiling float64) {
	if highest <= 0 || math.IsInf(highest, 0) || math.IsNaN(highest) {
		return 1, 1
	}
	step = math.Pow(10, math.Floor(math.Log10(highest/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if highest <= 5*m*step {
			step *= m
			break
		}
	}
	return step, step * math.Ceil(highest/step)
}

func (e *Experiment) drawBars(b *strings.Builder, y func(float64) float64) {
	xs, series := e.xs(), e.series()
	group := float64(plotW) / float64(max(1, len(xs)))
	bar := group * 0.8 / float64(max(1, len(series)))
	for i, x := range xs {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, left+group*(float64(i)+0.5), top+plotH+16, html.EscapeString(x))
		for j, s := range series {
			v, ok := e.Get(s, x)
			if !ok {
				continue
			}
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s, %s: %s %s</title></rect>`,
				left+group*(float64(i)+0.1)+bar*float64(j), y(v), bar*0.95, top+plotH-y(v), colour(j),
				html.EscapeString(s), html.EscapeString(x), Number(v), html.EscapeString(e.Unit))
		}
	}
}

func (e *Experiment) drawLines(b *strings.Builder, y func(float64) float64) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range e.Points {
		low, high = min(low, p.At), max(high, p.At)
	}
	if high <= low {
		high = low + 1
	}
	x := func(at float64) float64 { return left + plotW*(at-low)/(high-low) }
	marked := map[string]bool{}
	for j, s := range e.series() {
		var path []string
		for _, p := range e.Points {
			if p.Series != s {
				continue
			}
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(p.At), y(p.Median)))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s, %s: %s %s</title></circle>`,
				x(p.At), y(p.Median), colour(j), html.EscapeString(s), html.EscapeString(p.X), Number(p.Median), html.EscapeString(e.Unit))
			if !marked[p.X] {
				marked[p.X] = true
				fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x(p.At), top+plotH+16, html.EscapeString(p.X))
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(path, " "), colour(j))
	}
}

// longLabels says whether the names of the rows would run into each other below the bars.
func (e *Experiment) longLabels() bool {
	xs, longest := e.xs(), 0
	for _, x := range xs {
		longest = max(longest, len(x))
	}
	return !e.Lines && longest*len(xs)*7 > plotW
}

// rows draws the bars lying, each group below its name.
func (e *Experiment) rows() string {
	const bar, name, gap, values = 11, 16, 8, 70
	xs, series := e.xs(), e.series()
	highest := 0.0
	for _, p := range e.Points {
		highest = max(highest, p.Median)
	}
	if highest <= 0 {
		highest = 1
	}
	height := top + len(xs)*(name+bar*len(series)+gap) + 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" role="img" font-family="sans-serif" font-size="12">`, chartW, height, chartW)
	fmt.Fprintf(&b, "<title>%s</title>", html.EscapeString(e.Title))
	e.legend(&b)
	y := top + 8
	for _, x := range xs {
		y += name
		fmt.Fprintf(&b, `<text x="8" y="%d">%s</text>`, y-3, html.EscapeString(x))
		for j, s := range series {
			if v, ok := e.Get(s, x); ok {
				w := max(1, (chartW-values-8)*v/highest)
				fmt.Fprintf(&b, `<rect x="8" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" font-size="10">%s</text>`,
					y, w, bar-1, colour(j), 12+w, y+bar-2, Number(v))
			}
			y += bar
		}
		y += gap
	}
	fmt.Fprintf(&b, `<text x="8" y="%d">%s</text></svg>`, height-4, html.EscapeString(e.Unit))
	return b.String()
}

func (e *Experiment) legend(b *strings.Builder) {
	for i, s := range e.series() {
		x := legendX + legendSpace*(i%4)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`,
			x, 4+14*(i/4), colour(i), x+14, 13+14*(i/4), html.EscapeString(s))
	}
}

package show

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Meter is a line of a terminal that says how far something is, and is taken away when it is over. Elsewhere it is quiet, and so it is
// in the first second: what is done by then needs no line. All long commands use it.
type Meter struct {
	w       io.Writer // nil: nothing is shown
	columns func() int
	start   time.Time
	quit    chan struct{}
	done    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	stage string
	at    int64
	total int64
}

// How calm it is.
const (
	progressDelay = time.Second
	progressEvery = 200 * time.Millisecond
)

// NewMeter begins a line on w, if that is a terminal. Close ends it.
func NewMeter(w io.Writer) *Meter {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &Meter{}
	}
	return newMeter(w, progressDelay, func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil || columns <= 0 {
			return 80
		}
		return columns
	})
}

func newMeter(w io.Writer, delay time.Duration, columns func() int) *Meter {
	p := &Meter{w: w, columns: columns, start: time.Now(), quit: make(chan struct{})}
	p.done.Go(func() { p.runDraw(delay) })
	return p
}

// Shown tells that there is a terminal.
func (p *Meter) Shown() bool { return p.w != nil }

// Step says what goes on, and how many bytes of it are done; total 0: nobody knows of how many. Any goroutine.
func (p *Meter) Step(stage string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage, p.at, p.total = stage, done, total
}

// Close takes the line away. It may be called more than once, by one goroutine.
func (p *Meter) Close() {
	if p.quit == nil {
		return
	}
	close(p.quit)
	p.done.Wait()
	p.quit = nil
}

// runDraw draws by the clock, not by Step: the time goes on where nothing is heard.
func (p *Meter) runDraw(delay time.Duration) {
	select {
	case <-p.quit:
		return
	case <-time.After(delay):
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		text := progressLine(p.stage, p.at, p.total, time.Since(p.start))
		p.mu.Unlock()
		r := []rune(text)
		_, _ = io.WriteString(p.w, "\r"+string(r[:min(len(r), max(0, p.columns()-1))])+clearLine)
		select {
		case <-p.quit:
			_, _ = io.WriteString(p.w, "\r"+clearLine)
			return
		case <-tick.C:
		}
	}
}

// progressLine says it in one line.
func progressLine(stage string, done, total int64, took time.Duration) string {
	seconds := took.Seconds()
	rate := float64(done) / seconds
	switch {
	case done <= 0:
		return fmt.Sprintf("%s  %.0f s", clean(stage), seconds)
	case total <= 0:
		return fmt.Sprintf("%s  %s  %s  %s", clean(stage), Bytes(done), Rate(rate), Seconds(seconds))
	}
	part := min(1, float64(done)/float64(total))
	left := ""
	if part < 1 {
		left = "  " + Seconds(float64(total-done)/rate) + " left"
	}
	return fmt.Sprintf("%s  %s %3.0f%%  %s of %s  %s%s", clean(stage), Bar(part, barWidth), 100*min(part, 1), Bytes(done), Bytes(total), Rate(rate), left)
}

// Reader counts what is read, as the progress of one stage.
func (p *Meter) Reader(r io.Reader, stage string, total int64) io.Reader {
	return &counted{p: p, stage: stage, total: total, r: r}
}

type counted struct {
	p           *Meter
	stage       string
	done, total int64
	r           io.Reader
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.done += int64(n)
	c.p.Step(c.stage, c.done, c.total)
	return n, err
}

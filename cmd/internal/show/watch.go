package show

import (
	"context"
	"io"
	"strings"
	"time"
)

// Terminal tells the size of a terminal in columns and lines; it is asked for each frame, since windows change.
type Terminal func() (columns, lines int)

// Watch writes what frame says, again and again, until ctx ends. On a terminal each frame takes the place of the
// one before, in one write and without clearing, so nothing flickers, on a screen of its own; elsewhere (nil) frames follow each other,
// with a blank line between. A frame may be an error's text: a daemon that restarts is waited for.
func Watch(ctx context.Context, w io.Writer, terminal Terminal, every time.Duration, frame func(context.Context) string) error {
	if terminal != nil {
		if _, err := io.WriteString(w, enter); err != nil {
			return err
		}
		defer io.WriteString(w, leave) //nolint:errcheck // nobody is left to tell
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		text := frame(ctx)
		if ctx.Err() != nil {
			return nil // what was asked for last may be half an answer
		}
		if terminal != nil {
			columns, lines := terminal()
			text = redraw(text, first, columns, lines)
		} else if !first && strings.Count(text, "\n") > 1 {
			text = "\n" + text
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// The few sequences that every terminal knows.
const (
	enter     = "\x1b[?1049h\x1b[?25l" // a screen of its own, without a cursor
	leave     = "\x1b[?25h\x1b[?1049l" // what was there before
	home      = "\x1b[H"
	clearAll  = "\x1b[2J"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// redraw cuts a frame to the window: a line that wraps, or a window that scrolls, would put the next frame in the
// wrong place.
func redraw(text string, first bool, columns, lines int) string {
	var b strings.Builder
	if first {
		b.WriteString(clearAll)
	}
	b.WriteString(home)
	for line := range strings.Lines(text) {
		if lines--; lines <= 0 {
			break
		}
		r := []rune(strings.TrimRight(line, "\n"))
		b.WriteString(string(r[:min(len(r), columns)]) + clearLine + "\n")
	}
	b.WriteString(clearRest)
	return b.String()
}

package show

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// Watch writes what frame says, again and again, until ctx ends. On a terminal each frame takes the place of the
// one before, in one write and without clearing, so nothing flickers; elsewhere frames follow each other, with
// a blank line between. A frame may be an error's text: a daemon that restarts is waited for.
func Watch(ctx context.Context, w io.Writer, terminal bool, every time.Duration, frame func(context.Context) string) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		text := frame(ctx)
		if ctx.Err() != nil {
			return nil // what was asked for last may be half an answer
		}
		if terminal {
			text = redraw(text, first)
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

// The few sequences that every terminal since the VT100 knows.
const (
	home      = "\x1b[H"
	clearAll  = "\x1b[2J"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

func redraw(text string, first bool) string {
	start := home
	if first {
		start = clearAll + home
	}
	lines := strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", clearLine+"\n")
	return fmt.Sprint(start, lines, clearLine, "\n", clearRest)
}

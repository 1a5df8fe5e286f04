package show

import (
	"context"
	"io"
	"strings"
	"time"
)

// Terminal is where a person looks at frames.
type Terminal struct {
	Size    func() (columns, lines int) // asked for each frame, since windows change
	Keys    <-chan byte                 // what is typed; nil: nobody types
	Resized <-chan struct{}             // the window has changed; nil: it is not told
}

// Watch writes what frame says, again and again, until ctx ends or q is typed. On a terminal each frame takes the place of the
// one before, in one write and without clearing, so nothing flickers, on a screen of its own; elsewhere (nil) frames follow each other,
// with a blank line between. A frame may be an error's text: a daemon that restarts is waited for.
func Watch(ctx context.Context, w io.Writer, terminal *Terminal, every time.Duration, frame func(context.Context) string) error {
	if terminal == nil {
		return watchPlain(ctx, w, every, frame)
	}
	if _, err := io.WriteString(w, enter); err != nil {
		return err
	}
	defer io.WriteString(w, leave) //nolint:errcheck // nobody is left to tell
	tick := time.NewTicker(every)
	defer tick.Stop()
	text := frame(ctx)
	for clear := true; ctx.Err() == nil; { // what was asked for last may be half an answer
		columns, lines := terminal.Size()
		if _, err := io.WriteString(w, redraw(text, clear, columns, lines)); err != nil {
			return err
		}
		clear = false
		select {
		case <-ctx.Done():
		case <-tick.C:
			text = frame(ctx)
		case <-terminal.Resized: // what the window did with the old lines nobody knows
			clear = true
		case key := <-terminal.Keys:
			if key == 'q' || key == 'Q' || key == interrupt {
				return nil
			}
			text = frame(ctx)
		}
	}
	return nil
}

func watchPlain(ctx context.Context, w io.Writer, every time.Duration, frame func(context.Context) string) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		text := frame(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !first && strings.Count(text, "\n") > 1 {
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

const interrupt = 3 // Ctrl-C where the terminal makes no signal of it

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
// wrong place. What does not fit is told.
func redraw(text string, clear bool, columns, lines int) string {
	var b strings.Builder
	if clear {
		b.WriteString(clearAll)
	}
	b.WriteString(home)
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if room := max(1, lines-1); len(all) > room {
		all = append(all[:room-1:room-1], "...")
	}
	for _, line := range all {
		r := []rune(line)
		b.WriteString(string(r[:min(len(r), columns)]) + clearLine + "\n")
	}
	b.WriteString(clearRest)
	return b.String()
}

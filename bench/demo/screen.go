package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// screen writes the demonstration: on a terminal the live line is redrawn in
// place, elsewhere a plain line comes every second.
type screen struct {
	out       *os.File
	term      bool
	start     time.Time
	last      time.Time // of a plain live line
	unsettled string    // the live line that still may be redrawn
}

func newScreen(out *os.File) screen {
	return screen{out: out, term: term.IsTerminal(int(out.Fd())), start: time.Now()}
}

func (s *screen) title(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%5.1f s  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.out, "         "+format+"\n", args...)
}

// command shows a command that is run.
func (s *screen) command(args ...string) {
	s.line("$ cawrm %s", strings.Join(args, " "))
}

// live shows the line of the moment.
func (s *screen) live(text string) {
	s.unsettled = text
	if s.term {
		width, _, err := term.GetSize(int(s.out.Fd()))
		if room := width - 10; err == nil && room > 0 && len(text) > room {
			text = text[:room]
		}
		fmt.Fprintf(s.out, "\r         %s\x1b[K", text)
		return
	}
	if time.Since(s.last) >= time.Second {
		s.settle()
	}
}

// settle leaves the last live line standing.
func (s *screen) settle() {
	if s.unsettled == "" {
		return
	}
	if s.term {
		fmt.Fprintln(s.out)
	} else {
		s.line("%s", s.unsettled)
	}
	s.unsettled, s.last = "", time.Now()
}

package main

import (
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"cawrm/cmd/internal/show"
)

// terminalOf is w's terminal; nil when it is none. restore gives it back as it was.
func terminalOf(w io.Writer, in io.Reader) (t *show.Terminal, restore func()) {
	out, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) {
		return nil, func() {}
	}
	resized, signals := make(chan struct{}, 1), make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH)
	go func() {
		for range signals {
			select {
			case resized <- struct{}{}:
			default: // it will look at the size anyway
			}
		}
	}()
	keys, still := keysOf(in)
	return &show.Terminal{Keys: keys, Resized: resized, Size: func() (columns, lines int) {
		columns, lines, err := term.GetSize(int(out.Fd()))
		if err != nil || columns <= 0 || lines <= 0 {
			return 80, 24
		}
		return columns, lines
	}}, func() { signal.Stop(signals); still() }
}

// keysOf hears each key as it is typed, without showing it; Ctrl-C and Ctrl-Z stay signals. nil: nobody types there.
func keysOf(r io.Reader) (keys <-chan byte, restore func()) {
	in, ok := r.(*os.File)
	if !ok {
		return nil, func() {}
	}
	fd := int(in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, func() {}
	}
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &now) != nil {
		return nil, func() {}
	}
	typed := make(chan byte)
	go func() { // ends with the process: nothing else interrupts a read of a terminal
		for b := make([]byte, 1); ; {
			if n, err := in.Read(b); n == 0 || err != nil {
				return
			}
			typed <- b[0]
		}
	}()
	return typed, func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }
}

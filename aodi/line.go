package aodi

import "sync"

// line is the order in which writes that wait for the log go on: that in which they came. Without it those that find a new segment open
// would fill it, and one that was woken for it could come too late again and again. Guarded by Volume.mu.
type line struct{ first, end uint64 }

// place is one write's in the line, if it has one.
type place struct {
	number uint64
	taken  bool
}

func (l *line) any() bool { return l.first != l.end }

// turn tells whether a write may look for a place in the log. One that comes while others wait stands behind them.
func (l *line) turn(p *place) bool {
	if l.any() {
		l.enter(p)
	}
	return !p.taken || p.number == l.first
}

// enter is called before a write waits.
func (l *line) enter(p *place) {
	if !p.taken {
		*p = place{l.end, true}
		l.end++
	}
}

// leave is called when it has found its place, or gives up: because the volume has failed, which all in the line do, or because there is no
// space, which the first one does.
func (l *line) leave(p *place, room *sync.Cond) {
	if !p.taken {
		return
	}
	if l.first++; l.any() {
		room.Broadcast()
	}
}

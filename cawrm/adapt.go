package cawrm

import (
	"time"

	"cawrm/cawrm/wire"
)

// adapt chooses the level of compression, once a span of a quarter of a second, by what the goroutine that packs frames has
// spent the span with:
//
//	link   it waited to hand a frame over: the link, its cap, or the peer is the limit
//	work   it packed; when it was given less processor time than that took, processors are the limit
//	else   it waited for records: the writers are the limit
//
// The link being the limit raises the level by one, processors being it lowers it by one; so does a link that was not
// waited for in eight spans, which asks for no such effort any more. Where both are short, a link that takes
// more than fastLink is left uncompressed, since that would cost the writers much of a core and the mirror little time; on
// a slower one the level stays. A level that was given up is not tried again for a while, which doubles each time.
type adapt struct {
	level wire.Level

	began      time.Time // of the span
	work, cpu  time.Duration
	link       time.Duration
	wire, data int64 // bytes, after packing and before
	calm       int   // spans in a row in which the link was not waited for

	failed wire.Level // this one and those above are not tried
	until  time.Time  // before this
	pause  time.Duration
}

const (
	adaptSpan  = 250 * time.Millisecond
	calmSpans  = 8
	firstPause = 2 * time.Second
	maxPause   = time.Minute

	fastLink    = 64 << 20 // bytes a second: a core takes three to four times as much at the lowest level
	littleBytes = 8 << 20  // bytes a second that are compressed for next to nothing
)

func newAdapt(now time.Time) adapt {
	return adapt{level: wire.LevelFast, began: now, pause: firstPause}
}

// frame notes that a frame was packed and handed over; now is after both.
func (a *adapt) frame(now time.Time, work, cpu, link time.Duration, wire, data int64) {
	a.work, a.cpu, a.link = a.work+work, a.cpu+cpu, a.link+link
	a.wire, a.data = a.wire+wire, a.data+data
	if span := now.Sub(a.began); span >= adaptSpan {
		a.decide(now, span)
		*a = adapt{level: a.level, began: now, calm: a.calm, failed: a.failed, until: a.until, pause: a.pause}
	}
}

func (a *adapt) decide(now time.Time, span time.Duration) {
	share := func(d time.Duration) float64 { return float64(d) / float64(span) }
	perSecond := func(n int64) float64 { return float64(n) / span.Seconds() }
	linkShort := share(a.link) > 0.25
	cpuShort := share(a.work) > 0.05 && float64(a.work) > 1.3*float64(a.cpu) || share(a.work) > 0.9
	fast := perSecond(a.wire) > fastLink
	if a.calm++; share(a.link) > 0.02 {
		a.calm = 0
	}
	switch {
	case cpuShort && fast, cpuShort && !linkShort && a.level > wire.LevelFast:
		a.lower(now)
	case linkShort && !cpuShort, a.level == wire.LevelOff && perSecond(a.data) < littleBytes:
		a.raise(now)
	case a.calm >= calmSpans && a.level > wire.LevelFast:
		a.level, a.calm = a.level-1, 0
	}
}

func (a *adapt) lower(now time.Time) {
	if a.level == wire.LevelOff {
		return
	}
	a.failed, a.until = a.level, now.Add(a.pause)
	a.pause = min(2*a.pause, maxPause)
	a.level--
}

func (a *adapt) raise(now time.Time) {
	next := a.level + 1
	if next <= wire.LevelBest && !(next >= a.failed && now.Before(a.until)) {
		a.level = next
	}
}

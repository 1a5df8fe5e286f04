package cawrm

import (
	"testing"
	"time"

	"cawrm/cawrm/wire"
)

// TestAdapt ensures that the level follows what is short, row by row of the rule in adapt.go.
func TestAdapt(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name            string
		level           wire.Level
		work, cpu, link time.Duration // of a span of 250 ms
		megabytes       int64         // a second on the wire, and of data
		want            wire.Level
	}{
		{"the link is the limit", wire.LevelFast, 20 * ms, 20 * ms, 200 * ms, 10, wire.LevelDefault},
		{"the link is, at the highest level", wire.LevelBest, 20 * ms, 20 * ms, 200 * ms, 10, wire.LevelBest},
		{"the link is, uncompressed", wire.LevelOff, 1 * ms, 1 * ms, 200 * ms, 100, wire.LevelFast},
		{"writers are the limit", wire.LevelFast, 30 * ms, 30 * ms, 0, 100, wire.LevelFast},
		{"writers are, at a high level", wire.LevelBetter, 30 * ms, 30 * ms, 0, 10, wire.LevelBetter},
		{"packing is the limit", wire.LevelFast, 240 * ms, 240 * ms, 0, 100, wire.LevelOff},
		{"packing is, slow link", wire.LevelBest, 240 * ms, 240 * ms, 0, 10, wire.LevelBetter},
		{"packing is, slow link, lowest level", wire.LevelFast, 240 * ms, 240 * ms, 0, 10, wire.LevelFast},
		{"processors are short", wire.LevelFast, 60 * ms, 30 * ms, 10 * ms, 100, wire.LevelOff},
		{"processors are, slow link", wire.LevelDefault, 60 * ms, 30 * ms, 10 * ms, 10, wire.LevelFast},
		{"both are, fast link", wire.LevelFast, 60 * ms, 30 * ms, 150 * ms, 100, wire.LevelOff},
		{"both are, slow link", wire.LevelDefault, 60 * ms, 30 * ms, 150 * ms, 10, wire.LevelDefault},
		{"hardly any work", wire.LevelFast, 2 * ms, 1 * ms, 0, 100, wire.LevelFast},
		{"little to send again", wire.LevelOff, 1 * ms, 1 * ms, 0, 1, wire.LevelFast},
	} {
		now := time.Unix(1, 0)
		a := newAdapt(now)
		a.level = tt.level
		a.frame(now.Add(250*ms), tt.work, tt.cpu, tt.link, tt.megabytes<<18, tt.megabytes<<18)
		if a.level != tt.want {
			t.Errorf("%s: from %v to %v, want %v", tt.name, tt.level, a.level, tt.want)
		}
	}
}

// TestAdaptCalms ensures that a high level is given up step by step when the link is not short any more, and is there again
// at once when it is.
func TestAdaptCalms(t *testing.T) {
	now := time.Unix(1, 0)
	a := newAdapt(now)
	a.level = wire.LevelBest
	span := func(link time.Duration) {
		now = now.Add(adaptSpan)
		a.frame(now, 20*time.Millisecond, 20*time.Millisecond, link, 1<<20, 1<<20)
	}
	for range 4 * calmSpans {
		span(0)
	}
	if a.level != wire.LevelFast {
		t.Errorf("level %v after the link was not waited for in %d spans", a.level, 4*calmSpans)
	}
	for range 3 {
		span(200 * time.Millisecond)
	}
	if a.level != wire.LevelBest {
		t.Errorf("level %v after 3 spans of waiting for the link", a.level)
	}
	for range 4 * calmSpans {
		span(20 * time.Millisecond) // enough, and no more
	}
	if a.level != wire.LevelBest {
		t.Errorf("level %v while the link is waited for now and then", a.level)
	}
}

// TestAdaptRests ensures that a level which was too much is not tried again at each turn.
func TestAdaptRests(t *testing.T) {
	now := time.Unix(1, 0)
	a := newAdapt(now)
	changes := 0
	for range 4 * 60 { // a minute in which the link is short below the default level, and the packing at it
		now = now.Add(250 * time.Millisecond)
		before := a.level
		if a.level >= wire.LevelDefault {
			a.frame(now, 240*time.Millisecond, 240*time.Millisecond, 0, 1<<20, 1<<20)
		} else {
			a.frame(now, 10*time.Millisecond, 10*time.Millisecond, 200*time.Millisecond, 1<<20, 1<<20)
		}
		if a.level != before {
			changes++
		}
	}
	if changes < 2 || changes > 12 {
		t.Errorf("%d changes in a minute", changes)
	}
}

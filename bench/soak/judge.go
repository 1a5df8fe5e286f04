package main

import (
	"fmt"
	"slices"
)

// bounds say what is no growth. A figure of a life grows when its median over the last third of the samples is
// beyond Factor times its median over the first third, plus the slack. The first fifth of a life is not looked at:
// caches fill and pools find their size.
type bounds struct {
	Factor      float64          `json:"factor"`
	Slack       map[string]int64 `json:"slack"`
	Most        map[string]int64 `json:"most"`             // of any sample
	Container   float64          `json:"container"`        // bytes of a container for each byte that clients wrote, at most
	ContainerBy int64            `json:"container_beside"` // and so much beside
}

// limits are the bounds of every soak. Without cleaning a container grows with what is written to it: by the data,
// the batch headers and summaries; beside that it may hold map pages and segments made ready.
var limits = bounds{
	Factor:      1.10,
	Slack:       map[string]int64{"rss_anon": 8 << 20, "heap": 8 << 20, "goroutines": 8, "threads": 8, "fds": 8, "lag_bytes": 16 << 20},
	Most:        map[string]int64{"rss_anon": 512 << 20, "goroutines": 500, "threads": 200, "fds": 200},
	Container:   1.25,
	ContainerBy: 512 << 20,
}

// figures are what is judged, by the names in bounds.
var figures = map[string]func(*sample) int64{
	"rss_anon":   func(s *sample) int64 { return s.RSSAnon },
	"heap":       func(s *sample) int64 { return s.Heap },
	"goroutines": func(s *sample) int64 { return s.Goroutines },
	"threads":    func(s *sample) int64 { return s.Threads },
	"fds":        func(s *sample) int64 { return s.FDs },
	"lag_bytes":  func(s *sample) int64 { return s.LagBytes },
}

// trend is what a figure did in a life.
type trend struct {
	First int64 `json:"first"` // median of the first third
	Last  int64 `json:"last"`
	Most  int64 `json:"most"`
}

const leastSamples = 9 // of a life, to judge it

// judge looks at one life of one daemon. Wrong lists what is beyond the bounds; few samples have no trends.
func judge(life []sample) (trends map[string]trend, wrong []string) {
	for i := range life {
		s := &life[i]
		for name, most := range limits.Most {
			if v := figures[name](s); v > most {
				wrong = append(wrong, fmt.Sprintf("%s: %s is %d at %.0f s, at most %d are allowed", s.Site, name, v, s.Seconds, most))
			}
		}
		if most := int64(limits.Container*float64(s.Written)) + limits.ContainerBy; s.Container > most {
			wrong = append(wrong, fmt.Sprintf("%s: the container takes %d bytes at %.0f s, at most %d are allowed after %d written",
				s.Site, s.Container, s.Seconds, most, s.Written))
		}
	}
	settled := life[len(life)/5:]
	if len(life) < leastSamples {
		return nil, wrong
	}
	trends = map[string]trend{}
	for name, of := range figures {
		t, ok := trendOf(settled, of, name == "lag_bytes")
		if !ok {
			continue
		}
		trends[name] = t
		if most := int64(limits.Factor*float64(t.First)) + limits.Slack[name]; t.Last > most {
			wrong = append(wrong, fmt.Sprintf("%s: %s grows: from %d to %d within a life, at most %d are allowed", life[0].Site, name, t.First, t.Last, most))
		}
	}
	slices.Sort(wrong)
	return trends, wrong
}

// trendOf compares the first and the last third. A lag says nothing while the line is down: then it has to grow.
func trendOf(life []sample, of func(*sample) int64, lineUp bool) (t trend, ok bool) {
	var v []int64
	for i := range life {
		if !lineUp || life[i].LineUp {
			v = append(v, of(&life[i]))
		}
	}
	if len(v) < 3 {
		return t, false
	}
	third := len(v) / 3
	return trend{median(v[:third]), median(v[len(v)-third:]), slices.Max(v)}, true
}

func median(v []int64) int64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

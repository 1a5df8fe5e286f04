package gc

import (
	"math"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// Candidate is a segment that can be cleaned.
type Candidate struct {
	Segment     uint32
	Live, Slots uint32 // chunks that are live, of those that the segment has for them
	Age         uint64 // records since the youngest in it was born
}

// Utilization is the share of the segment that is live.
func (c Candidate) Utilization() float64 { return min(1, float64(c.Live)/float64(max(1, c.Slots))) }

// Policy tells how good it is to clean a segment; the greatest value goes first.
type Policy func(Candidate) float64

// CostBenefit is the space that cleaning frees for what it costs, times how long it is likely to stay so.
func CostBenefit(c Candidate) float64 {
	u := c.Utilization()
	return (1 - u) / (1 + u) * float64(c.Age+1)
}

// Greedy is the space that cleaning frees.
func Greedy(c Candidate) float64 { return 1 - c.Utilization() }

// mostLive is the share above which a segment is not worth cleaning: of a volume that is as full as it may be, the
// average segment is below.
const mostLive = 31.0 / 32

// mostPages is the same for map pages: those that change are soon somewhere else by themselves.
const mostPages = 0.5

// candidate makes one of a segment, if it is worth cleaning.
func candidate(s aodi.SealedSegment, slots uint32, most float64) (Candidate, bool) {
	c := Candidate{Segment: s.Segment, Live: s.Live, Slots: slots - (slots+format.MaxEntries)/(format.MaxEntries+1), Age: uint64(s.Age)}
	if s.Kind == format.BatchMeta {
		most = min(most, mostPages)
	}
	return c, c.Utilization() < most
}

// VictimUtilization is the theory's share of live chunks in the segments that are cleaned, under uniformly random overwrites, of a
// container of which the share used is live: the u for which used = (u-1)/ln u.
func VictimUtilization(used float64) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		u := (low + high) / 2
		if (u-1)/math.Log(u) < used {
			low = u
		} else {
			high = u
		}
	}
	return low
}

// Amplification is the theory's write amplification under uniformly random overwrites: what is written for each chunk that a
// client writes.
func Amplification(used float64) float64 { return 1 / (1 - VictimUtilization(used)) }

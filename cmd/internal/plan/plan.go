// Package plan says what lag and what retention to expect of a volume: from its own log, which tells when what was written, and
// from a line's rate.
//
// The line is a bucket that runs out at its rate; what is written fills it, second by second. What is in it is the lag in bytes,
// and its oldest content is the lag in seconds. That is the worst case: compression, and jump epochs, which ship a chunk once
// that was written many times, make it less.
package plan

import (
	"errors"
	"io"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// readBytes is how much of the log is read at a time.
const readBytes = 4 << 20

// Writes are what a volume's log tells: bytes of data by second.
type Writes struct {
	From, To time.Time
	Bytes    int64           // written
	Unique   int64           // of chunks that were written at least once: what a jump epoch over all of it would send
	Seconds  map[int64]int64 // bytes, by unix second
	Complete bool            // the log goes back to the volume's beginning
}

// Read reads a volume's log from its history_floor on. The volume may be in use.
func Read(v *aodi.Volume) (Writes, error) {
	for {
		w, err := read(v)
		if !errors.Is(err, aodi.ErrHistoryGone) {
			return w, err
		} // the floor rose meanwhile
	}
}

func read(v *aodi.Volume) (Writes, error) {
	floor := v.HistoryFloor()
	_, durable := v.Pointers()
	w := Writes{Seconds: map[int64]int64{}, Complete: floor == 0}
	log, err := v.ReadLog(floor)
	if err != nil {
		return w, err
	}
	defer log.Close()
	seen := make([]uint64, (v.Size()/format.ChunkSize+63)/64)
	var b aodi.LogBatch
	var first, last int64
	for {
		err := log.Next(durable, readBytes, &b)
		if err == io.EOF {
			break
		}
		if err != nil {
			return w, err
		}
		if first == 0 {
			first = b.Time
		}
		last = b.Time
		w.Bytes += int64(len(b.Data))
		w.Seconds[b.Time/int64(time.Second)] += int64(len(b.Data))
		w.Unique += unique(seen, b.Entries)
	}
	w.From, w.To = time.Unix(0, first), time.Unix(0, last)
	return w, nil
}

// unique notes chunks and returns the bytes of those that were not seen.
func unique(seen []uint64, entries []format.Entry) (bytes int64) {
	for _, e := range entries {
		i := uint64(e.LBA)
		if e.Kind != format.KindData || i/64 >= uint64(len(seen)) || seen[i/64]>>(i%64)&1 == 1 {
			continue
		}
		seen[i/64] |= 1 << (i % 64)
		bytes += format.ChunkSize
	}
	return bytes
}

// Forecast is what to expect of a line.
type Forecast struct {
	Rate        int64   `json:"rate_bytes_per_second"`
	Keeps       bool    `json:"keeps_up"` // the line carries the average
	MaxBytes    int64   `json:"max_lag_bytes"`
	MaxSeconds  float64 `json:"max_lag_seconds"`
	P99Seconds  float64 `json:"p99_lag_seconds"`
	BehindShare float64 `json:"behind_share"`    // of the time that the mirror lacks more than a second
	Outage      float64 `json:"outage_catch_up"` // seconds to catch up after an hour without a line, at the average
}

// maxSteps bounds a forecast of a log of years: its steps are seconds as long as they are fewer.
const maxSteps = 1 << 20

// Over forecasts a line of so many bytes a second.
func (w Writes) Over(rate int64) Forecast {
	f := Forecast{Rate: rate}
	span := w.span()
	step := 1 + span/maxSteps
	arrived := make([]int64, (span+step-1)/step)
	for s, n := range w.Seconds {
		if i := (s - w.From.Unix()) / step; i >= 0 && i < int64(len(arrived)) { // clocks are set
			arrived[i] += n
		}
	}
	var lag int64
	lags := make([]float64, len(arrived))
	for i, n := range arrived {
		lag = max(0, lag+n-rate*step)
		f.MaxBytes = max(f.MaxBytes, lag)
		if lags[i] = float64(lag) / float64(rate); lags[i] > 1 {
			f.BehindShare += 1 / float64(len(arrived))
		}
	}
	slices.Sort(lags)
	f.MaxSeconds, f.P99Seconds = lags[len(lags)-1], lags[len(lags)*99/100]
	average := w.Bytes / span
	f.Keeps, f.Outage = average <= rate, -1
	if average < rate {
		f.Outage = 3600 * float64(average) / float64(rate-average)
	}
	return f
}

// span is how long was written, in seconds.
func (w Writes) span() int64 { return max(1, w.To.Unix()-w.From.Unix()+1) }

// PerDay is what a day of it writes, and so what a day of history keeps.
func (w Writes) PerDay() int64 { return int64(float64(w.Bytes) / float64(w.span()) * 86400) }

// Least is the smallest rate with which the lag stays below so many seconds.
func (w Writes) Least(seconds float64) int64 {
	low, high := int64(1), int64(1)
	for w.Over(high).MaxSeconds > seconds && high < 1<<50 {
		high *= 2
	}
	for low < high {
		if mid := low + (high-low)/2; w.Over(mid).MaxSeconds > seconds {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// Report is all that is said of a volume.
type Report struct {
	From     time.Time  `json:"from"`
	To       time.Time  `json:"to"`
	Complete bool       `json:"since_the_beginning"`
	Bytes    int64      `json:"written_bytes"`
	Unique   int64      `json:"unique_bytes"`
	PerDay   int64      `json:"written_bytes_per_day"`
	Least    []Promise  `json:"least_rates"`
	Lines    []Forecast `json:"lines"`
}

// Promise is the smallest rate that keeps a lag.
type Promise struct {
	Seconds float64 `json:"max_lag_seconds"`
	Rate    int64   `json:"rate_bytes_per_second"`
}

// Make reads a volume's log and forecasts each rate.
func Make(v *aodi.Volume, rates []int64) (Report, error) {
	w, err := Read(v)
	if err != nil {
		return Report{}, err
	}
	if w.Bytes == 0 {
		return Report{}, errors.New("there is nothing in its log to plan with: let it be used for a while")
	}
	r := Report{From: w.From, To: w.To, Complete: w.Complete, Bytes: w.Bytes, Unique: w.Unique, PerDay: w.PerDay(), Lines: []Forecast{}}
	for _, s := range []float64{1, 10, 60, 600} {
		r.Least = append(r.Least, Promise{s, w.Least(s)})
	}
	for _, rate := range rates {
		r.Lines = append(r.Lines, w.Over(rate))
	}
	return r, nil
}

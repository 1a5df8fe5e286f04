package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"cawrm/aodi"
	"cawrm/gc"
)

const chunk = 4096

// slowWrite is the longest that a write may be stalled.
const slowWrite = 100 * time.Millisecond

// result is what a case gave.
type result struct {
	amplification, theory float64
	rate                  float64 // writes a second
	writes, slow          int
	p999, longest         time.Duration
}

// measure fills a volume, overwrites it twice, and measures then.
func measure(c config, l load, dir string) (r result, err error) {
	path := filepath.Join(dir, "container")
	defer os.Remove(path)
	chunks := int64(float64(c.capacity)*c.used) / chunk
	opt := aodi.CreateOptions{Size: chunks * chunk}
	if l.policy != nil {
		opt.Capacity = c.capacity
	}
	if err := aodi.Create(path, opt); err != nil {
		return r, err
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if l.policy != nil {
		cleaner := gc.Start(v, gc.Options{Policy: l.policy})
		defer cleaner.Close()
	}
	p := make([]byte, chunk)
	for at := range chunks {
		binary.LittleEndian.PutUint64(p, uint64(at))
		if err := v.WriteAt(p, at*chunk, false); err != nil {
			return r, fmt.Errorf("filling: %w", err)
		}
	}
	all := l.places(chunks, c.seed)
	warm := int64(0)
	if l.policy != nil {
		warm = 2 * chunks
	}
	if _, err := overwrite(v, all, c.writers, func(n int64, _ time.Duration) bool { return n < warm }); err != nil {
		return r, fmt.Errorf("before the measurement: %w", err)
	}
	before, began := v.Space(), time.Now()
	times, err := overwrite(v, all, c.writers, func(_ int64, took time.Duration) bool { return took < c.each })
	if err != nil {
		return r, err
	}
	took, after := time.Since(began), v.Space()
	r.writes, r.slow, r.longest, r.p999 = times.writes, times.slow, times.longest, times.quantile(0.999)
	r.rate = float64(times.writes) / took.Seconds()
	r.amplification = 1 + float64(after.Moved-before.Moved)/float64(after.Logged-before.Logged)
	slots := float64(after.SegmentChunks) * 128 / 129 // a header a batch
	r.theory = gc.Amplification(min(.99, float64(after.LiveBytes/chunk)/(slots*float64(after.Limit-after.Keep-2*after.Low))))
	return r, nil
}

// overwrite writes at the places as long as more says so of the number of writes and the time, and returns how long they took.
func overwrite(v *aodi.Volume, all places, writers int, more func(n int64, took time.Duration) bool) (*tally, error) {
	var wg sync.WaitGroup
	var n atomic.Int64
	began := time.Now()
	times, errs := make([]tally, writers), make([]error, writers)
	for i := range writers {
		next := all.writer(i)
		wg.Go(func() {
			p := make([]byte, chunk)
			for now := time.Now(); more(n.Add(1)-1, now.Sub(began)); {
				at := next()
				binary.LittleEndian.PutUint64(p, uint64(n.Load()))
				binary.LittleEndian.PutUint64(p[8:], uint64(at))
				if errs[i] = v.WriteAt(p, at*chunk, false); errs[i] != nil {
					return
				}
				end := time.Now()
				times[i].add(end.Sub(now))
				now = end
			}
		})
	}
	wg.Wait()
	for i := range times[1:] {
		times[0].merge(&times[i+1])
	}
	return &times[0], errors.Join(errs...)
}

// tally counts writes by how long they took, so that hours of them take no memory.
type tally struct {
	writes, slow int
	longest      time.Duration
	buckets      [1024]int // each reaches 4 % further than the one before
}

const bucketRatio = 1.02

func (t *tally) add(took time.Duration) {
	t.writes++
	if took > slowWrite {
		t.slow++
	}
	t.longest = max(t.longest, took)
	t.buckets[min(len(t.buckets)-1, int(math.Log(float64(max(1, took)))/math.Log(bucketRatio)/2))]++
}

func (t *tally) merge(o *tally) {
	t.writes, t.slow, t.longest = t.writes+o.writes, t.slow+o.slow, max(t.longest, o.longest)
	for i, n := range o.buckets {
		t.buckets[i] += n
	}
}

// quantile is the time that a share of the writes did not exceed.
func (t *tally) quantile(share float64) time.Duration {
	left := int(float64(t.writes) * share)
	for i, n := range t.buckets {
		if left -= n; left < 0 {
			return min(t.longest, time.Duration(math.Pow(bucketRatio, 2*float64(i+1))))
		}
	}
	return t.longest
}

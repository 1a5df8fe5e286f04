package paper

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ncw/directio"

	"cawrm/bench/baseline"
	"cawrm/bench/report"
)

// networks are the speeds S of formula (1), in bytes a second.
var networks = []int64{12_500_000, 125_000_000}

// formula is formula (1): with a sync thread that reads k chunks from the volume, then sends them for as long as the network
// needs, a writer keeps W' = W / (S/R + 1).
//
// The sync thread is Algorithm 1 as it stands: it reads from the disk (past the page cache), in order, what lies behind, while the
// writer appends; nothing is sent while it reads. R depends on k, W' on S/R.
func (b *bench) formula() error {
	rate := b.experiment("formula-rate", "Formula (1): the writer's rate against k", "network and k", "MB/s",
		"W' = W / (S/R + 1): the larger k, the faster the read, the faster the writer")
	rate.Note = "W: the writer alone; R: the sync thread alone, without a network; W': the writer beside the sync thread"
	over := b.experiment("formula-ratio", "Formula (1): measured over formula", "network and k", "ratio",
		"1.0 where the formula holds: reader and writer exclude each other on the disk")
	over.Note = "above 1, reading does not stop the writer: a disk that works at several requests at once is not shared by turns"
	all, err := b.rigs([]string{PlainLog}, rigConfig{size: b.volume})
	if err != nil {
		return err
	}
	defer closeAll(all)
	log, err := newOldLog(filepath.Join(b.Dir, "old.log"), b.volume)
	if err != nil {
		return err
	}
	defer log.close()
	writer := workload{"writer", true, false, 4}
	return b.eachRound(rate.Title, func(round int) error {
		for _, k := range b.ks {
			alone, err := writer.run(all[0].Volume, b.turn, uint64(round))
			if err != nil {
				return err
			}
			reading, err := log.sync(k, 0, b.turn, nil)
			if err != nil {
				return err
			}
			for _, s := range networks {
				beside, err := b.beside(all[0].Volume, writer, log, k, s, b.turn, uint64(round))
				if err != nil {
					return err
				}
				x := fmt.Sprintf("%.0f Mbit/s, k=%d", float64(s)*8/1e6, k)
				formula := alone / (float64(s)/reading + 1)
				add(rate, x, alone, reading, formula, beside)
				over.Add("measured / formula", x, 0, beside/formula)
			}
		}
		return nil
	})
}

func add(e *report.Experiment, x string, alone, reading, formula, beside float64) {
	e.Add("W", x, 0, alone/1e6)
	e.Add("R", x, 0, reading/1e6)
	e.Add("W' by formula", x, 0, formula/1e6)
	e.Add("W' measured", x, 0, beside/1e6)
}

// beside runs the writer with the sync thread beside it.
func (b *bench) beside(v baseline.Volume, w workload, log *oldLog, k int, s int64, d time.Duration, seed uint64) (float64, error) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { _, failed = log.sync(k, s, time.Hour, stop) })
	rate, err := w.run(v, d, seed)
	close(stop)
	wg.Wait()
	if err == nil {
		err = failed
	}
	return rate, err
}

// oldLog is a stretch of log that lies behind: nothing of it is in the page cache.
type oldLog struct {
	f    *os.File
	size int64
	buf  []byte
	at   int64
}

const maxK = 1024

func newOldLog(path string, size int64) (*oldLog, error) {
	f, err := directio.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("a log to read past the page cache: %w", err)
	}
	l := &oldLog{f: f, size: size, buf: directio.AlignedBlock(maxK * baseline.Chunk)}
	rand.NewChaCha8([32]byte{2}).Read(l.buf)
	for off := int64(0); off < size; off += int64(len(l.buf)) {
		if _, err := f.WriteAt(l.buf, off); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, f.Sync()
}

func (l *oldLog) close() {
	l.f.Close()
	os.Remove(l.f.Name())
}

// sync is Algorithm 1 for d or until stop: copy k chunks, which takes the read and then the network's time (0: none). It
// returns bytes a second.
func (l *oldLog) sync(k int, network int64, d time.Duration, stop <-chan struct{}) (float64, error) {
	p, n := l.buf[:k*baseline.Chunk], int64(0)
	start := time.Now()
	for time.Since(start) < d {
		select {
		case <-stop:
			return float64(n) / time.Since(start).Seconds(), nil
		default:
		}
		if l.at+int64(len(p)) > l.size {
			l.at = 0
		}
		if _, err := l.f.ReadAt(p, l.at); err != nil {
			return 0, err
		}
		l.at += int64(len(p))
		n += int64(len(p))
		if network > 0 {
			pause(time.Duration(float64(len(p)) / float64(network) * float64(time.Second)))
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

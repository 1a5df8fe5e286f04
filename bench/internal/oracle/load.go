package oracle

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"cawrm/bench/internal/nbdclient"

	"golang.org/x/time/rate"
)

// Load is a stream of requests that an oracle records: mostly writes of 1 to
// 16 blocks, some with FUA, some trims, zeroings, flushes, and reads that are
// compared with the last write.
type Load struct {
	Oracle *Oracle
	Depth  int           // requests outstanding on each connection
	Pace   *rate.Limiter // of the bytes that are written; nil: as fast as the server answers

	Requests atomic.Int64 // answered so far
	Written  atomic.Int64 // bytes of writes that were answered
}

// ErrWrong marks an answer that breaks a promise, other than by the connection
// ending.
var ErrWrong = errors.New("the server gave a wrong answer")

// Run keeps Depth requests outstanding on each connection until stop is closed
// or the connections fail, as they do when the server is killed. It returns
// nil in both cases, and an error that wraps ErrWrong for a read that shows
// other than the last write, or a request that was refused.
func (l *Load) Run(stop <-chan struct{}, seed uint64, conns ...*nbdclient.Client) error {
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		w := &worker{load: l, conn: c, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		wg.Go(func() { errs[i] = w.run(stop) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// worker drives one connection from one goroutine.
type worker struct {
	load *Load
	conn *nbdclient.Client
	rng  *rand.Rand
	done chan *nbdclient.Request
	out  map[*nbdclient.Request]func() error // what to do with an answer
	free [][]byte
}

const maxBlocks = 16

func (w *worker) run(stop <-chan struct{}) error {
	w.done = make(chan *nbdclient.Request, w.load.Depth)
	w.out = map[*nbdclient.Request]func() error{}
	var failed error
	for open := true; open || len(w.out) > 0; {
		for open && len(w.out) < w.load.Depth {
			w.send()
		}
		select {
		case <-stop:
			open, stop = false, nil
			continue
		case r := <-w.done:
			if err := w.take(r); err != nil {
				open, failed = false, errors.Join(failed, err)
			}
			if r.Err != nil {
				open = false
			}
		}
	}
	return failed
}

// take handles one answer. The end of the connection is no error here.
func (w *worker) take(r *nbdclient.Request) error {
	answered := w.out[r]
	delete(w.out, r)
	if r.Data != nil {
		w.free = append(w.free, r.Data[:cap(r.Data)])
	}
	var refused nbdclient.Error
	switch {
	case errors.As(r.Err, &refused):
		if refused == nbdclient.ESHUTDOWN {
			return nil
		}
		return fmt.Errorf("%w: %s of %d bytes at %d: %w", ErrWrong, r.Command, r.Length, r.Offset, refused)
	case r.Err != nil:
		return nil
	}
	w.load.Requests.Add(1)
	if err := answered(); err != nil {
		return fmt.Errorf("%w: %w", ErrWrong, err)
	}
	return nil
}

func (w *worker) send() {
	o := w.load.Oracle
	count := 1 + int64(w.rng.IntN(4))
	if w.rng.IntN(4) == 0 {
		count = 1 + int64(w.rng.IntN(maxBlocks))
	}
	var flags nbdclient.Flags
	if w.rng.IntN(30) == 0 {
		flags = nbdclient.FUA
	}
	fua := flags != 0
	switch n := w.rng.IntN(100); {
	case n < 2:
		event := o.BeginFlush()
		w.start(&nbdclient.Request{Command: nbdclient.Flush}, func() error { o.Flushed(event); return nil })
	case n < 10:
		first, n := o.BeginRead(w.rng, count)
		r := &nbdclient.Request{Command: nbdclient.Read, Offset: first * BlockSize, Data: w.buffer(n)}
		w.start(r, func() error { return o.EndRead(first, n, r.Data) })
	case n < 13:
		w.change(nbdclient.Trim, flags, o.Begin(w.rng, count, true, fua))
	case n < 16:
		w.change(nbdclient.WriteZeroes, flags, o.Begin(w.rng, count, true, fua))
	default:
		w.change(nbdclient.Write, flags, o.Begin(w.rng, count, false, fua))
	}
}

// change sends op as a request of that kind.
func (w *worker) change(c nbdclient.Command, f nbdclient.Flags, op *Op) {
	r := &nbdclient.Request{Command: c, Flags: f, Offset: op.First * BlockSize, Length: uint32(op.Count * BlockSize)}
	written := int64(0)
	if c == nbdclient.Write {
		written = op.Count * BlockSize
		if w.load.Pace != nil {
			time.Sleep(w.load.Pace.ReserveN(time.Now(), int(written)).Delay())
		}
		r.Data = w.buffer(op.Count)
		for i := range op.Count {
			Stamp(r.Data[i*BlockSize:(i+1)*BlockSize], op.Seq, op.First+i)
		}
	}
	w.start(r, func() error {
		w.load.Oracle.Answered(op)
		w.load.Written.Add(written)
		return nil
	})
}

func (w *worker) start(r *nbdclient.Request, answered func() error) {
	r.Done = w.done
	w.out[r] = answered
	w.conn.Start(r)
}

func (w *worker) buffer(blocks int64) []byte {
	if n := len(w.free); n > 0 {
		b := w.free[n-1]
		w.free = w.free[:n-1]
		return b[:blocks*BlockSize]
	}
	return make([]byte, maxBlocks*BlockSize)[:blocks*BlockSize]
}

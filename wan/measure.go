package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Measured is what a line was found to be like, beside what it is to be like.
type Measured struct {
	Mode       Mode
	Congestion string
	RTT        time.Duration // median of single bytes there and back on an idle line
	WantRTT    time.Duration
	Rate       float64 // bytes a second of one connection, there, once it has got going
	WantRate   float64 // 0: unlimited
}

// The parts of a measurement.
const (
	pings     = 9
	bulkTime  = 700 * time.Millisecond // and two round trips
	bulkPiece = 64 << 10
)

// Measure makes a line like p, without its script, on the loopback of this
// machine, and measures it.
func Measure(ctx context.Context, mode Mode, p Profile) (Measured, error) {
	p.Script, p.Repeat = nil, 0
	far, err := newFarEnd()
	if err != nil {
		return Measured{}, err
	}
	defer far.close()
	l, err := ListenIn(ctx, mode, "127.0.0.1:0", far.ln.Addr().String(), p)
	if err != nil {
		return Measured{}, err
	}
	defer l.Close()
	m := Measured{
		Mode: l.Mode(), Congestion: l.Congestion(),
		WantRTT: 2*p.Delay + p.Jitter, WantRate: float64(p.Rate), // jitter adds half of it each way on average
	}
	if m.RTT, err = far.ping(l.Addr()); err != nil {
		return m, fmt.Errorf("measure the delay: %w", err)
	}
	warm := 400*time.Millisecond + 8*p.Delay
	if m.Mode != Relay {
		warm = time.Second + 16*p.Delay // the kernel's TCP has to find the rate
	}
	m.Rate, err = far.bulk(ctx, l.Addr(), p, warm)
	if err != nil {
		return m, fmt.Errorf("measure the rate: %w", err)
	}
	return m, nil
}

// farEnd sends single bytes back and counts the others.
type farEnd struct {
	ln    net.Listener
	count atomic.Int64
	wg    sync.WaitGroup
}

func newFarEnd() (*farEnd, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &farEnd{ln: ln}
	f.wg.Go(f.runAccept)
	return f, nil
}

func (f *farEnd) close() {
	f.ln.Close()
	f.wg.Wait()
}

func (f *farEnd) runAccept() {
	for {
		c, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() {
			defer c.Close()
			buf := make([]byte, bulkPiece)
			for {
				n, err := c.Read(buf)
				f.count.Add(int64(n))
				if err != nil {
					return
				}
				if n == 1 {
					c.Write(buf[:1])
				}
			}
		})
	}
}

func (f *farEnd) ping(addr string) (time.Duration, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	var took []time.Duration
	for range pings + 1 {
		start := time.Now()
		if _, err := c.Write([]byte{1}); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	took = took[1:] // the first waited for the connection
	slices.Sort(took)
	return took[len(took)/2], nil
}

func (f *farEnd) bulk(ctx context.Context, addr string, p Profile, warm time.Duration) (float64, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	sending := make(chan error, 1)
	go func() {
		piece := make([]byte, bulkPiece)
		for {
			if _, err := c.Write(piece); err != nil {
				sending <- err
				return
			}
		}
	}()
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case err := <-sending:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err = wait(warm)
	start, before := time.Now(), f.count.Load()
	if err == nil {
		err = wait(bulkTime + 4*p.Delay)
	}
	took, n := time.Since(start), f.count.Load()-before
	c.Close()
	if err == nil {
		<-sending
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return float64(n) / took.Seconds(), err
}

package cawrm

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// traffic counts what went over a mirror's links since Start.
type traffic struct {
	data    atomic.Int64 // bytes of chunks that were shipped
	zeroes  atomic.Int64 // of them, chunks of zeroes
	repeats atomic.Int64 // of them, chunks that the peer had just got
	deltas  atomic.Int64 // of them, chunks of which the peer had just got most
	refs    atomic.Int64 // bytes of chunks that the peer had, and that frames referred to
	cpu     atomic.Int64 // processor time of packing, ns
	level   atomic.Int32
}

// runPack makes frames of what runRead has read, as small as there is time for.
func (s *shipment) runPack(ctx context.Context) {
	var p wire.Packer
	s.m.refer(&p)
	defer p.Release()
	a := newAdapt(time.Now())
	for {
		var ep *epoch
		select {
		case ep = <-s.read:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		cpu, err := s.pack(&p, ep, a.level)
		if err != nil {
			s.giveUp(err)
			return
		}
		packed := time.Now()
		select {
		case s.out <- ep:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		// After this ep is runSend's.
		a.frame(now, packed.Sub(began), cpu, now.Sub(packed), s.lastWire, s.lastData)
	}
}

// pack makes the frame of an epoch and says how much processor time it took.
func (s *shipment) pack(p *wire.Packer, ep *epoch, level wire.Level) (cpu time.Duration, err error) {
	switch s.m.Settings().Compress {
	case CompressOff:
		level = wire.LevelOff
	case CompressFast:
		level = wire.LevelFast
	case CompressMore:
		level = wire.LevelDefault
	case CompressHard:
		level = wire.LevelBetter
	case CompressBest:
		level = wire.LevelBest
	}
	ep.level = level
	b := &ep.batch
	if ep.check != nil {
		return 0, nil
	}
	// The time of a thread is only this goroutine's while it stays on it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	err = p.Pack(&ep.frame, &wire.Records{First: b.First, End: b.End, Time: b.Time, Commit: ep.commit, Jump: b.Jump,
		Entries: b.Entries, Data: b.Data}, level)
	cpu = threadTime() - before
	s.m.traffic.cpu.Add(int64(cpu))
	s.lastWire, s.lastData = ep.frame.Size(), int64(len(b.Data))
	return cpu, err
}

// threadTime is the processor time of the calling thread. Where the kernel does not say, it stands still: processors never seem short then.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// shipped counts an epoch that was sent.
func (t *traffic) shipped(ep *epoch) {
	t.data.Add(int64(len(ep.batch.Data)))
	t.zeroes.Add(int64(ep.frame.Zeroes) * format.ChunkSize)
	t.repeats.Add(int64(ep.frame.Repeats) * format.ChunkSize)
	t.deltas.Add(int64(ep.frame.Deltas) * format.ChunkSize)
	t.refs.Add(int64(ep.frame.References) * format.ChunkSize)
	t.level.Store(int32(ep.level))
}

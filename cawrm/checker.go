package cawrm

import (
	"fmt"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// checker answers a source's CHECKs beside the feed: it reads and hashes while epochs go on being applied. runReceive gives it
// the questions, in their order; what it has to say goes through runAnswer.
type checker struct {
	f     *feed
	ask   chan wire.Check
	done  chan struct{}
	still *aodi.Still
	sum   *summer
}

// maxAsked is how many questions may wait. A source asks the next one when it has the answer.
const maxAsked = 8

// check takes a CHECK, in the place of the stream where it stands.
func (f *feed) check(c wire.Check) error {
	if f.checker == nil {
		f.checker = &checker{f: f, ask: make(chan wire.Check, maxAsked), done: make(chan struct{})}
		go f.checker.runChecks()
	}
	if c.Op == wire.CheckOpen {
		// All that came before is staged. Once it is committed nothing moves the volume until the next frame is read.
		if err := f.holdStill(&c); err != nil {
			c.Failed, c.Body = true, clip(err)
		}
	}
	select {
	case f.checker.ask <- c:
		return nil
	default:
		return refusef(wire.CodeGarbage, "mirror %q: more than %d questions at once", f.t.name, maxAsked)
	}
}

// holdStill opens a still at the position that is meant. It is the checker's when that takes the question.
func (f *feed) holdStill(c *wire.Check) error {
	p, err := f.t.v.Commit()
	if err != nil {
		return err
	}
	if uint64(p) != c.First {
		return fmt.Errorf("the mirror stands at %d, not at %d", p, c.First)
	}
	s, err := f.t.v.OpenStill()
	if err != nil {
		return err
	}
	if uint64(s.End) != c.First {
		s.Close()
		return fmt.Errorf("the mirror's checkpoint is at %d, not at %d", s.End, c.First)
	}
	select {
	case f.opened <- s:
		return nil
	default:
		s.Close()
		return fmt.Errorf("another comparison begins just now")
	}
}

// endChecks ends the checker, if there is one. runReceive has ended.
func (f *feed) endChecks() {
	if f.checker != nil {
		close(f.checker.ask)
		<-f.checker.done
	}
	select {
	case s := <-f.opened:
		s.Close()
	default:
	}
}

func (k *checker) runChecks() {
	defer close(k.done)
	defer k.close()
	for c := range k.ask {
		if c.Op == wire.CheckClose {
			k.close()
			continue
		}
		if !c.Failed {
			a, err := k.answer(c)
			if c = a; err != nil {
				c.Failed, c.Body = true, clip(err)
			}
		}
		frame, err := wire.AppendSums(nil, &c)
		if err != nil {
			k.f.stop(k.f.failed(err))
			continue
		}
		select {
		case k.f.say <- frame:
		case <-k.f.over: // nobody hears it any more
		}
	}
}

func (k *checker) close() {
	if k.still != nil {
		k.still.Close()
		k.still, k.sum = nil, nil
	}
}

// answer does what is asked.
func (k *checker) answer(c wire.Check) (wire.Check, error) {
	a := wire.Check{Op: c.Op, First: c.First, Count: c.Count}
	v := k.f.t.v
	switch c.Op {
	case wire.CheckOpen:
		k.close()
		k.still = <-k.f.opened
		k.sum = newSummer(k.still)
		return a, nil
	case wire.CheckMend:
		if len(c.Body) != format.ChunkSize {
			return a, fmt.Errorf("a chunk of %d bytes", len(c.Body))
		}
		done, err := v.Mend(c.First, c.Body)
		if a.Count = 0; done {
			a.Count = 1
			k.f.p.tell(EventRepaired, k.f.t.name, "chunk %d did not match its checksum, and was mended from the source", c.First)
		}
		return a, err
	case wire.CheckWant:
		p, err := wanted(v, c.First, uint32(c.Count))
		a.Body = p
		return a, err
	}
	if k.still == nil {
		return a, fmt.Errorf("nothing is held")
	}
	ranges := rangesOf(k.still.Size())
	switch c.Op {
	case wire.CheckRanges:
		if c.Count > wire.MaxDigests || c.First+c.Count > ranges {
			return a, fmt.Errorf("%d ranges from %d on of %d", c.Count, c.First, ranges)
		}
		for i := range c.Count {
			d, _, err := k.sum.digest(c.First + i)
			if err != nil {
				return a, err
			}
			a.Body = append(a.Body, d[:]...)
		}
	case wire.CheckChunks:
		if c.First >= ranges {
			return a, fmt.Errorf("range %d of %d", c.First, ranges)
		}
		var err error
		a.Body, err = k.sum.sums(c.First)
		return a, err
	case wire.CheckFetch:
		a.Body = make([]byte, format.ChunkSize)
		return a, k.still.ReadAt(a.Body, int64(c.First)*format.ChunkSize)
	}
	return a, nil
}

// wanted reads a chunk for a site where it is damaged.
func wanted(v *aodi.Volume, lba uint64, sum uint32) ([]byte, error) {
	p := make([]byte, format.ChunkSize)
	if err := v.ReadAt(p, int64(lba)*format.ChunkSize); err != nil {
		return nil, err
	}
	if format.Sum(p)&0xffffff != sum {
		return nil, fmt.Errorf("it holds something else there: that was written since, or is not here yet")
	}
	return p, nil
}

// clip is an error as a body.
func clip(err error) []byte {
	text := err.Error()
	return []byte(text[:min(len(text), wire.MaxText)])
}

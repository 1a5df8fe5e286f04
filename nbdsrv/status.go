package nbdsrv

import (
	"encoding/binary"
)

// statusBuffer bounds the answer to one NBD_CMD_BLOCK_STATUS; a client that wants more extents asks
// again from where the answer ends.
const statusBuffer = 64 << 10

// extent is a stretch of the export with one status.
type extent struct {
	length uint64
	flags  uint32
}

// extentScan collects what Device.Extents reports: equal neighbours merged, never past the range,
// and no more than asked for.
type extentScan struct {
	list  []extent
	left  uint64 // bytes of the range not yet covered
	most  int    // extents
	least uint64 // a hole shorter than this counts as data; 0 keeps everything as reported
	visit func(length int64, flags uint32) bool
}

// bind makes the callback once in a scan's life, so that a request does not allocate it.
func (s *extentScan) bind() { s.visit = s.add }

func (s *extentScan) start(length uint64, most int, least uint64) {
	s.list, s.left, s.most, s.least = s.list[:0], length, most, least
}

// add takes one extent and says whether another is wanted. Extents that make no sense end the scan.
func (s *extentScan) add(length int64, flags uint32) bool {
	if length <= 0 || s.left == 0 {
		return false
	}
	n := min(uint64(length), s.left)
	flags &= StateHole | StateZero
	if s.least > 0 {
		flags &= StateZero
		if n < s.least {
			flags = 0
		}
	}
	last := len(s.list) - 1
	switch {
	case last >= 0 && s.list[last].flags == flags:
		s.list[last].length += n
	case len(s.list) == s.most:
		return false
	default:
		s.list = append(s.list, extent{n, flags})
	}
	s.left -= n
	return s.left > 0
}

func (s *extentScan) complete() bool { return s.left == 0 }

// holes says whether any extent reads as zeroes.
func (s *extentScan) holes() bool {
	for i := range s.list {
		if s.list[i].flags&StateZero != 0 {
			return true
		}
	}
	return false
}

// blockStatus takes the payload of NBD_CMD_BLOCK_STATUS, n bytes, if it has one, and hands the
// request over. The payload names the contexts wanted, and there is only one to name.
func (c *conn) blockStatus(r *request, n uint64) error {
	if r.flags&cmdFlagPayloadLen != 0 {
		if n != 12 {
			c.refuse(r, refusePayload)
			return c.skip(n)
		}
		if err := c.need(12); err != nil {
			return endOf(err, true)
		}
		b := c.take(12)
		r.length = binary.BigEndian.Uint64(b)
		if binary.BigEndian.Uint32(b[8:]) != metaAllocationID {
			c.refuse(r, refusePayload)
			return nil
		}
		if why := c.view.checkRange(r); why.code != 0 {
			c.refuse(r, why)
			return nil
		}
	}
	c.handOver(c.beginCharged(r, statusBuffer, charge(pieceSize))) // the list of extents is charged too
	return nil
}

// executeStatus answers NBD_CMD_BLOCK_STATUS.
func (t *task) executeStatus() {
	r, m := &t.req, t.c.view.mode
	head, size := structReplySize+4, 8
	if m == extended {
		head, size = extReplySize+8, 16
	}
	most := statusBuffer / size
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	t.extents.start(r.length, most, 0)
	err := t.c.view.export.Device.Extents(int64(r.offset), int64(r.length), t.extents.visit)
	if err != nil {
		t.answer(err)
		return
	}
	list := t.extents.list
	if len(list) == 0 {
		list = append(list, extent{length: r.length}) // not knowing is always a good answer
	}
	b := t.buf.framed(head, 0)
	h := m.appendChunk(b[:0], r, replyFlagDone, m.statusType(), uint32(head-m.replySize()+size*len(list)))
	h = binary.BigEndian.AppendUint32(h, metaAllocationID)
	if m == extended {
		h = binary.BigEndian.AppendUint32(h, uint32(len(list)))
	}
	for _, x := range list {
		if m == extended {
			h = binary.BigEndian.AppendUint64(h, x.length)
			h = binary.BigEndian.AppendUint64(h, uint64(x.flags))
		} else {
			h = binary.BigEndian.AppendUint32(h, uint32(x.length))
			h = binary.BigEndian.AppendUint32(h, x.flags)
		}
	}
	t.answerData(h)
}

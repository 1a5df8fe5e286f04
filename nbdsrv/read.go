package nbdsrv

// A worker asks the device for holes before a read of at least sparseMin bytes, and tells the client
// of those of at least holeMin bytes instead of sending zeroes, in up to maxChunks chunks. Inline reads
// do not ask: Extents may wait.
const (
	sparseMin = 64 << 10
	holeMin   = 16 << 10
	maxChunks = 32
)

// executeRead reads into the task's buffer and sends it from there.
func (t *task) executeRead() {
	r, m := &t.req, t.c.view.mode
	if t.partial() {
		t.readPieces()
		return
	}
	if m != simple && r.flags&cmdFlagDF == 0 && r.length >= sparseMin && t.findHoles() {
		t.readSparse()
		return
	}
	n := int(r.length)
	if err := t.c.view.export.Device.ReadAt(t.buf.data()[:n], int64(r.offset)); err != nil {
		t.answer(err)
		return
	}
	t.c.counts.readBytes.Add(r.length)
	head := m.dataHeaderSize()
	b := t.buf.framed(head, n)
	m.appendData(b[:0], r)
	t.answerData(b)
}

// findHoles cuts the read into pieces of data and holes. It says false if there is no hole worth a
// chunk, or no telling.
func (t *task) findHoles() bool {
	r := &t.req
	t.extents.start(r.length, maxChunks, holeMin)
	err := t.c.view.export.Device.Extents(int64(r.offset), int64(r.length), t.extents.visit)
	return err == nil && t.extents.holes() && t.extents.complete()
}

// readSparse reads the data between the holes and sends a chunk for each piece. Nothing is sent
// before everything has been read, so an error is the only answer if there is one.
func (t *task) readSparse() {
	r, c := &t.req, t.c
	dev := c.view.export.Device
	data := t.buf.data()
	var at uint64
	for _, x := range t.extents.list {
		if x.flags&StateZero == 0 {
			if err := dev.ReadAt(data[at:at+x.length], int64(r.offset+at)); err != nil {
				t.answer(err)
				return
			}
		}
		at += x.length
	}
	c.counts.readBytes.Add(r.length)
	t.sendChunks(data)
}

// sendChunks sends the pieces in t.extents; their headers stand in the buffer's headroom.
func (t *task) sendChunks(data []byte) {
	r, c, m := &t.req, t.c, t.c.view.mode
	block := t.buf.block[:0:headroom]
	segs := t.segs[:0]
	var at uint64
	for i, x := range t.extents.list {
		var flags uint16
		if i == len(t.extents.list)-1 {
			flags = replyFlagDone
		}
		from := len(block)
		if x.flags&StateZero != 0 {
			block = m.appendHole(block, r, flags, r.offset+at, uint32(x.length))
			segs = append(segs, segment{b: block[from:]})
		} else {
			block = m.appendDataChunk(block, r, flags, r.offset+at, uint32(x.length))
			segs = append(segs, segment{b: block[from:]}, segment{b: data[at : at+x.length]})
		}
		at += x.length
	}
	segs = append(segs, segment{buf: t.buf, charge: t.charge, ends: 1})
	c.mu.Lock()
	c.sendLocked(segs...)
	clear(segs)
	t.segs = segs[:0]
	t.release()
}

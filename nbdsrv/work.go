package nbdsrv

import (
	"sync"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// task is one request on its way through a worker.
type task struct {
	c      *conn
	req    request
	buf    *buffer // a write's payload, the place for a read's data or for extents; may be nil
	charge int64   // what buf costs the budgets until the answer is sent

	extents  extentScan
	segs     []segment
	flushing flushing
}

var taskPool sync.Pool

func newTask(r *request, n int, charge int64) *task {
	t, ok := taskPool.Get().(*task)
	if !ok {
		t = new(task)
		t.extents.bind()
	}
	t.req, t.charge = *r, charge
	if n > 0 {
		t.buf = newBuffer(n)
	}
	return t
}

func (t *task) release() {
	t.c, t.buf = nil, nil
	if cap(t.extents.list) > 2*maxChunks {
		t.extents.list = nil // of a BLOCK_STATUS; not to be kept by hundreds of tasks
	}
	taskPool.Put(t)
}

// handOver gives a task to a worker; a new one starts while all are busy, up to the limit.
func (c *conn) handOver(t *task) {
	t.c = c
	if int(c.handed.Add(1)) > c.started && c.started < c.server.cfg.Workers {
		c.started++
		c.workers.Add(1)
		go c.runWorker(t)
		return
	}
	c.tasks <- t // never full: it has room for maxRequests
}

// runWorker serves tasks until the connection ends.
func (c *conn) runWorker(t *task) {
	defer c.workers.Done()
	for ok := true; ok; t, ok = <-c.tasks {
		t.execute()
		c.handed.Add(-1)
	}
}

// execute makes the device do what the task says, and answers.
func (t *task) execute() {
	dev, r := t.c.view.export.Device, &t.req
	if (r.typ == protocol.TRANSMISSION_TYPE_REQUEST_READ || r.typ == cmdBlockStatus) && t.c.deaf.Load() {
		t.answer(errDeaf)
		return
	}
	fua := r.flags&cmdFlagFUA != 0
	off, length := int64(r.offset), int64(r.length)
	switch r.typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		t.executeRead()
	case cmdBlockStatus:
		t.executeStatus()
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		err := dev.WriteAt(t.buf.data()[:length], off, fua)
		if err == nil {
			t.c.counts.writtenBytes.Add(r.length)
		}
		t.answer(err)
	case cmdFlush:
		t.executeFlush(dev)
	case cmdTrim:
		t.answer(dev.Trim(off, length, fua))
	case cmdWriteZeroes:
		t.answer(dev.WriteZeroes(off, length, r.flags&cmdFlagNoHole != 0, fua))
	}
}

// answer ends the task with an answer that carries no data. The payload buffer goes first: nobody
// needs it while the client is slow to read.
func (t *task) answer(err error) {
	c := t.c
	t.buf.release()
	var small [smallReply]byte
	reply, charge := c.result(small[:0], &t.req, err), t.charge
	t.release()
	c.mu.Lock()
	c.sendSmallLocked(reply, charge)
}

// result appends the answer of a request that the device has done, or failed.
func (c *conn) result(b []byte, r *request, err error) []byte {
	if err == nil {
		return c.view.mode.appendDone(b, r)
	}
	why := deviceRefusal(r, err)
	c.counts.errors.Add(1)
	return c.view.mode.appendError(b, r, why.code, why.text)
}

// answerData ends the task with output that lies in its buffer, which the writer gives back.
func (t *task) answerData(b []byte) {
	c, s := t.c, segment{b: b, buf: t.buf, charge: t.charge, ends: 1}
	t.release()
	c.mu.Lock()
	c.sendLocked(s)
}

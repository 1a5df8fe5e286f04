package baseline

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// runLink connects, again and again, until Close.
func (m *Mirror) runLink() {
	for m.ctx.Err() == nil {
		if conn, err := m.cfg.Dial(m.ctx); err == nil {
			m.session(conn)
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(m.cfg.Retry):
		}
	}
}

// greet finds out whether there is a backup at the other end: it answers a beat.
func (m *Mirror) greet(conn net.Conn) bool {
	stop := context.AfterFunc(m.ctx, func() { conn.Close() })
	defer stop()
	m.seq++
	conn.SetDeadline(time.Now().Add(3 * m.cfg.KeepAlive))
	if _, err := conn.Write(batch{seq: m.seq}.encode()); err != nil {
		return false
	}
	var answer [8]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return false
	}
	conn.SetDeadline(time.Time{})
	return binary.LittleEndian.Uint64(answer[:]) == m.seq
}

// session mirrors over one connection until it breaks.
func (m *Mirror) session(conn net.Conn) {
	if !m.greet(conn) {
		conn.Close()
		return
	}
	m.mu.Lock()
	m.up = true
	m.stats.Resyncs++
	m.mu.Unlock()
	lost := func() {
		conn.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.downLocked()
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { defer lost(); m.runSend(conn) })
	wg.Go(func() { defer lost(); m.runAcks(conn) })
	wg.Go(m.runResync)
	go func() {
		select {
		case <-m.ctx.Done():
			lost()
		case <-stop:
		}
	}()
	wg.Wait()
	close(stop)
}

// downLocked takes note of a lost link: what was queued or not answered is marked (B1), and from now on writes are only
// marked.
func (m *Mirror) downLocked() {
	if !m.up {
		return
	}
	m.up, m.pos = false, 0
	for _, b := range m.flying {
		m.queue = append(m.queue, b.writes...)
	}
	for _, w := range m.queue {
		for c := w.off / Chunk; c < (w.off+int64(len(w.data)))/Chunk; c++ {
			m.dirty.set(c)
		}
	}
	m.queue, m.flying, m.held, m.copies = nil, nil, 0, 0
	m.moved.Broadcast()
}

// runSend sends the queue in batches.
func (m *Mirror) runSend(conn net.Conn) {
	for {
		b, ok := m.nextBatch()
		if !ok {
			return
		}
		raw := b.encode()
		conn.SetWriteDeadline(time.Now().Add(3 * m.cfg.KeepAlive))
		n, err := conn.Write(raw)
		m.mu.Lock()
		m.stats.Sent += int64(n)
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// nextBatch waits for writes, and makes a beat when there are none for a while.
func (m *Mirror) nextBatch() (batch, bool) {
	beat := false
	timer := time.AfterFunc(m.cfg.KeepAlive, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		beat = true
		m.moved.Broadcast()
	})
	defer timer.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) == 0 && m.up && !beat {
		m.moved.Wait()
	}
	if !m.up {
		return batch{}, false
	}
	m.seq++
	b := batch{seq: m.seq}
	n, size := 0, 0
	for n < len(m.queue) && n < maxWrites && (n == 0 || size+len(m.queue[n].data) <= wantedBatch) {
		size += len(m.queue[n].data)
		n++
	}
	b.writes = append(b.writes, m.queue[:n]...)
	m.queue = m.queue[n:]
	m.flying = append(m.flying, b)
	return b, true
}

// runAcks takes the answers.
func (m *Mirror) runAcks(conn net.Conn) {
	var answer [8]byte
	for {
		conn.SetReadDeadline(time.Now().Add(3 * m.cfg.KeepAlive))
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return
		}
		if !m.answered(binary.LittleEndian.Uint64(answer[:])) {
			return
		}
	}
}

// answered takes batches up to seq off the list; false when there is no such batch.
func (m *Mirror) answered(seq uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.up || len(m.flying) == 0 || m.flying[0].seq != seq {
		return false
	}
	for _, w := range m.flying[0].writes {
		m.held -= int64(len(w.data))
		if w.copied {
			m.copies--
		}
	}
	m.wholeLocked()
	m.flying = m.flying[1:]
	m.moved.Broadcast()
	return true
}

// wholeLocked finds that the last copy of a resync has arrived.
func (m *Mirror) wholeLocked() {
	if m.pos == m.chunks && m.copies == 0 {
		m.whole = true
	}
}

// runChunks is the most that is copied at once.
const runChunks = 64

// runResync goes over the volume and queues what is marked, until it is through or the link is lost.
func (m *Mirror) runResync() {
	buf := make([]byte, runChunks*Chunk)
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.up && m.pos < m.chunks {
		from := m.dirty.next(m.pos, m.chunks)
		m.pos = from
		if from == m.chunks {
			m.wholeLocked()
			m.moved.Broadcast()
			return
		}
		end := from + 1
		for end < m.chunks && end < from+runChunks && m.dirty.has(end) {
			end++
		}
		if m.held >= m.cfg.Queue || m.overlapsLocked(from, end) {
			m.moved.Wait() // case ii, or no room
			continue
		}
		for c := from; c < end; c++ {
			m.dirty.clear(c)
		}
		p := buf[:(end-from)*Chunk]
		m.mu.Unlock()
		err := m.local.ReadAt(p, from*Chunk)
		m.mu.Lock()
		if !m.up || err != nil || m.overlapsLocked(from, end) || m.dirty.next(from, end) < end {
			// The link is gone, or a write came in between: what was read is of no use. Mark it, and look again.
			for c := from; c < end; c++ {
				m.dirty.set(c)
			}
			if err != nil {
				return // the local volume has failed
			}
			continue
		}
		m.pushLocked(write{off: from * Chunk, data: append([]byte(nil), p...), copied: true})
		m.whole = false
		m.copies++
		m.stats.Copied += end - from
		m.pos = end
	}
}

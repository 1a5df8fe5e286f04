package baseline

import (
	"context"
	"net"
	"sync"
	"time"
)

// Config says how to mirror.
type Config struct {
	Dial      func(ctx context.Context) (net.Conn, error)
	Queue     int64         // bytes of clones that may wait or be unanswered before writers wait; 0: 64 MiB
	Equal     bool          // both volumes are known to be alike: no initial synchronisation
	Retry     time.Duration // after a lost link; 0: 100 ms
	KeepAlive time.Duration // a link that has been silent for three times as long is down; 0: 2 s
}

// Stats counts what happened.
type Stats struct {
	Before, At, After int64 // writes of chunks by their case while a resync ran
	Copied            int64 // chunks that resyncs have queued
	Sent              int64 // bytes put on the link
	Resyncs           int64
}

// Mirror is the remote module: it stands on the local volume and is the volume of those above.
type Mirror struct {
	local  Volume
	cfg    Config
	chunks int64
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	moved  sync.Cond          // on mu: anything below has changed
	busy   map[int64]struct{} // the hash table: chunks whose local write is under way
	dirty  bitmap
	pos    int64 // chunk at which runResync is: 0 with the link down, chunks when it is through
	up     bool
	queue  []write
	flying []batch // sent and not acknowledged
	held   int64   // bytes in queue and flying
	seq    uint64
	whole  bool  // the mirror is a prefix of the writes (B3)
	copies int64 // of this link's resync that are not acknowledged
	stats  Stats
}

// Start starts mirroring local. It returns at once.
func Start(local Volume, cfg Config) *Mirror {
	if cfg.Queue == 0 {
		cfg.Queue = 64 << 20
	}
	if cfg.Retry == 0 {
		cfg.Retry = 100 * time.Millisecond
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 2 * time.Second
	}
	chunks := local.Size() / Chunk
	m := &Mirror{local: local, cfg: cfg, chunks: chunks, busy: map[int64]struct{}{}, dirty: newBitmap(chunks), whole: cfg.Equal}
	m.moved.L = &m.mu
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if !cfg.Equal {
		for c := range chunks {
			m.dirty.set(c)
		}
	}
	m.wg.Go(m.runLink)
	return m
}

// Close ends mirroring; the local volume stays.
func (m *Mirror) Close() {
	m.cancel()
	m.mu.Lock()
	m.moved.Broadcast()
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *Mirror) Size() int64                      { return m.local.Size() }
func (m *Mirror) ReadAt(p []byte, off int64) error { return m.local.ReadAt(p, off) }
func (m *Mirror) Flush() error                     { return m.local.Flush() }

// WriteAt writes p to the local volume, and a clone of it into the queue where the link and the resync allow.
func (m *Mirror) WriteAt(p []byte, off int64) error {
	if err := check(m.local, p, off); err != nil {
		return err
	}
	first, end := off/Chunk, (off+int64(len(p)))/Chunk
	m.mu.Lock()
	m.interceptLocked(p, first, end)
	m.mu.Unlock()

	err := m.local.WriteAt(p, off)

	m.mu.Lock()
	defer m.mu.Unlock()
	for c := first; c < end; c++ {
		delete(m.busy, c)
		if err != nil { // nobody knows what is there: the next resync copies it
			m.dirty.set(c)
		}
	}
	m.moved.Broadcast()
	return err
}

// interceptLocked waits until it is the turn of this write (B2) and there is room, enters it in the hash table, clones the
// chunks before pos and marks the others. They are marked before they are written, and not, as in the paper, after: runResync
// must not go by while the write is under way, and where a bit is set it looks into the table.
func (m *Mirror) interceptLocked(p []byte, first, end int64) {
	for m.overlapsLocked(first, end) || m.up && m.pos > first && m.held >= m.cfg.Queue && m.ctx.Err() == nil {
		m.moved.Wait()
	}
	for c := first; c < end; c++ {
		m.busy[c] = struct{}{}
	}
	cloned := max(first, min(end, m.pos))
	for c := cloned; c < end; c++ {
		m.dirty.set(c)
	}
	if m.up && m.pos < m.chunks {
		for c := first; c < end; c++ {
			switch {
			case c < m.pos:
				m.stats.Before++
			case c == m.pos:
				m.stats.At++
			default:
				m.stats.After++
			}
		}
	}
	if cloned > first {
		m.pushLocked(write{off: first * Chunk, data: append([]byte(nil), p[:(cloned-first)*Chunk]...)})
	}
}

func (m *Mirror) overlapsLocked(first, end int64) bool {
	for c := first; c < end; c++ {
		if _, is := m.busy[c]; is {
			return true
		}
	}
	return false
}

func (m *Mirror) pushLocked(w write) {
	m.queue = append(m.queue, w)
	m.held += int64(len(w.data))
	m.moved.Broadcast()
}

// Synced says whether the mirror has everything that was written.
func (m *Mirror) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncedLocked()
}

func (m *Mirror) syncedLocked() bool {
	return m.up && m.pos == m.chunks && m.held == 0 && len(m.busy) == 0
}

// Wait waits until the mirror has everything.
func (m *Mirror) Wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.moved.Broadcast()
	})()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.syncedLocked() {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.moved.Wait()
	}
	return nil
}

// Consistent says whether the mirror is a state that the source once had (B3). During a resync it is none.
func (m *Mirror) Consistent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.whole
}

// Lag is what the mirror lacks, in bytes: clones that wait, and chunks that are marked.
func (m *Mirror) Lag() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held + Chunk*m.dirty.count()
}

// Stats counts what happened so far.
func (m *Mirror) Stats() Stats { m.mu.Lock(); defer m.mu.Unlock(); return m.stats }

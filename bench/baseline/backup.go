package baseline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"github.com/ncw/directio"

	"cawrm/aodi/disk"
)

// Backup is the other site: it commits batches to a volume, in the order in which they come.
//
// With a journal a batch is written there and made durable first, and then written in place: a crash between leaves
// either none of it or, after Recover, all. A volume that is a log needs none: after a crash it is a prefix of the writes.
type Backup struct {
	volume  Volume
	journal *journal // nil: none
	wg      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ends  bool
	err   error // why the last connection ended

	turn sync.Mutex // of the connection that is served; taken before mu
}

// NewBackup makes a backup. log is the disk of the journal, nil for a volume that needs none; it is gone over for
// batches that a crash has left, which are written to the volume first.
func NewBackup(v Volume, log disk.Disk) (*Backup, error) {
	b := &Backup{volume: v, conns: map[net.Conn]struct{}{}}
	if log == nil {
		return b, nil
	}
	b.journal = &journal{d: log}
	return b, b.journal.recover(v)
}

// Serve takes connections until the listener is closed.
func (b *Backup) Serve(ln interface{ Accept() (net.Conn, error) }) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		b.mu.Lock()
		if b.ends {
			b.mu.Unlock()
			c.Close()
			continue
		}
		for old := range b.conns { // the source has given it up, whatever is still in it
			old.Close()
		}
		b.conns[c] = struct{}{}
		b.wg.Go(func() { b.runConn(c) })
		b.mu.Unlock()
	}
}

// Close ends all connections and waits for their batches.
func (b *Backup) Close() {
	b.mu.Lock()
	b.ends = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *Backup) runConn(c net.Conn) {
	// What an earlier connection has brought is committed, or forgotten, before this one is heard: an old batch behind a
	// newer one would take it back.
	b.turn.Lock()
	defer b.turn.Unlock()
	err := b.receive(c)
	c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	delete(b.conns, c)
}

// Err is why the last connection ended.
func (b *Backup) Err() error { b.mu.Lock(); defer b.mu.Unlock(); return b.err }

func (b *Backup) receive(c net.Conn) error {
	for {
		x, raw, err := readBatch(c)
		if err != nil {
			return err
		}
		if err := b.commit(x, raw); err != nil {
			return err
		}
		if _, err := c.Write(binary.LittleEndian.AppendUint64(nil, x.seq)); err != nil {
			return err
		}
	}
}

// commit makes a batch durable, all or nothing.
func (b *Backup) commit(x batch, raw []byte) error {
	if len(x.writes) == 0 {
		return nil
	}
	for _, w := range x.writes {
		if err := check(b.volume, w.data, w.off); err != nil {
			return err
		}
	}
	if b.journal != nil {
		if err := b.journal.append(b.volume, raw); err != nil {
			return err
		}
	}
	if err := apply(b.volume, x); err != nil {
		return err
	}
	if b.journal == nil {
		return b.volume.Flush()
	}
	return nil
}

func apply(v Volume, x batch) error {
	for _, w := range x.writes {
		if err := v.WriteAt(w.data, w.off); err != nil {
			return fmt.Errorf("batch %d at %d: %w", x.seq, w.off, err)
		}
	}
	return nil
}

// journal is a log of batches, each behind a chunk that says which round of the journal it is of. What is in it is
// durable in place before it starts over.
type journal struct {
	d     disk.Disk
	at    int64
	round uint64
}

// JournalSize is the size of the journal.
const JournalSize = 64 << 20

// append makes raw durable. Everything is then safe in the journal: what is in place may still be in a cache.
func (j *journal) append(v Volume, raw []byte) error {
	n := Chunk + (int64(len(raw))+Chunk-1)/Chunk*Chunk
	if j.at+n > JournalSize || j.round == 0 {
		if err := v.Flush(); err != nil {
			return err
		}
		j.at, j.round = 0, j.round+1
	}
	if j.d.Size() < j.at+n {
		if err := j.d.Grow(j.at + n); err != nil {
			return err
		}
	}
	p := directio.AlignedBlock(int(n))
	binary.LittleEndian.PutUint64(p, j.round)
	binary.LittleEndian.PutUint64(p[8:], uint64(len(raw)))
	copy(p[Chunk:], raw)
	if err := j.d.WriteAt(p, j.at); err != nil {
		return err
	}
	j.at += n
	return j.d.Sync()
}

// recover writes to v what the journal holds of its newest round, in order. A batch that is not whole, or of an earlier round,
// is the end. Writing one again that is in place already changes nothing: those behind it follow.
func (j *journal) recover(v Volume) error {
	head := directio.AlignedBlock(Chunk)
	for at := int64(0); at+Chunk <= j.d.Size(); {
		if err := j.d.ReadAt(head, at); err != nil {
			return err
		}
		round, n := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint64(head[8:]))
		if at == 0 {
			j.round = round
		}
		if round == 0 || round != j.round || n < headSize || n > maxBatch+maxWrites*entrySize+headSize || at+Chunk+n > j.d.Size() {
			break
		}
		raw := make([]byte, n)
		if err := j.d.ReadAt(raw, at+Chunk); err != nil {
			return err
		}
		x, _, err := readBatch(bytes.NewReader(raw))
		if err != nil {
			break
		}
		if err := apply(v, x); err != nil {
			return err
		}
		at += Chunk + (n+Chunk-1)/Chunk*Chunk
	}
	// The next append flushes v and begins a new round.
	j.at = JournalSize
	return v.Flush()
}

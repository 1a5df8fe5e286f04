package paper

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ncw/directio"

	"cawrm/bench/baseline"
)

// limits is what this machine itself can do: no server gets beyond it.
func (b *bench) limits() error {
	e := b.experiment("limits", "The machine's own limits", "what", "as said", "")
	e.Name, e.Mixed = "machine/limits", true
	f, err := directio.OpenFile(filepath.Join(b.Dir, "limits"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	buf := directio.AlignedBlock(1 << 20)
	rand.NewChaCha8([32]byte{3}).Read(buf)
	if err := f.Truncate(b.volume); err != nil {
		return err
	}
	for off := int64(0); off < b.volume; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	chunks := b.volume / baseline.Chunk
	target := make([]byte, len(buf))
	ping, closeConn, err := loopback()
	if err != nil {
		return err
	}
	defer closeConn()
	return b.eachRound(e.Title, func(int) error {
		for _, x := range []struct {
			what string
			unit float64 // of one operation, in what the row says
			op   func(i int64) error
		}{
			{"disk: write 1 MiB past the page cache, MB/s", 1.048576, func(i int64) error { _, err := f.WriteAt(buf, i*int64(len(buf))%b.volume); return err }},
			{"disk: write 4 KiB anywhere, one at a time, IOPS", 1, func(int64) error {
				_, err := f.WriteAt(buf[:baseline.Chunk], rng.Int64N(chunks)*baseline.Chunk)
				return err
			}},
			{"disk: read 4 KiB anywhere, one at a time, IOPS", 1, func(int64) error {
				_, err := f.ReadAt(buf[:baseline.Chunk], rng.Int64N(chunks)*baseline.Chunk)
				return err
			}},
			{"disk: write 4 KiB and fdatasync, a second", 1, func(int64) error {
				if _, err := f.WriteAt(buf[:baseline.Chunk], rng.Int64N(chunks)*baseline.Chunk); err != nil {
					return err
				}
				return f.Sync()
			}},
			{"unix socket: a byte there and back, a second", 1, func(int64) error { return ping() }},
			{"memory: copy of 1 MiB, MB/s", 1.048576, func(int64) error { copy(target, buf); return nil }},
		} {
			start, n := time.Now(), int64(0)
			for ; time.Since(start) < b.turn; n++ {
				if err := x.op(n); err != nil {
					return err
				}
			}
			e.Add("this machine", x.what, 0, float64(n)*x.unit/time.Since(start).Seconds())
		}
		return nil
	})
}

// loopback makes a socket whose other end sends each byte back.
func loopback() (ping func() error, closeConn func(), err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, nil, err
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := ln.Accept(); err == nil {
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // not by splice: a server copies
			c.Close()
		}
	}()
	c, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, 1)
	ping = func() error {
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}
	return ping, func() { c.Close(); ln.Close(); <-done; os.RemoveAll(dir) }, nil
}

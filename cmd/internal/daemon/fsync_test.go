package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/nbdsrv"
)

// TestFailedSyncOverNBD: a sync that fails is an EIO for the client that waits for it and for all who come after, until the
// volume is opened again; it is never tried again, and what can be read still is.
func TestFailedSyncOverNBD(t *testing.T) {
	d := disk.NewMemory(1 << 28)
	defer d.Free()
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	var syncs atomic.Int64
	f := &disk.Faulty{Disk: d, Rule: func(op disk.Op, _ int64, _ int) error {
		if op != disk.OpSync {
			return nil
		}
		syncs.Add(1)
		if broken.CompareAndSwap(true, false) {
			return syscall.EIO // once: the next would succeed, and say nothing of what this one has lost
		}
		return nil
	}}
	v := openOn(t, f)
	c, stop := serveNBD(t, v)
	first, second := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	c.want(0, cmdWrite, 0, 0, first)
	c.want(0, cmdFlush, 0, 0, nil)
	c.want(0, cmdWrite, 0, 4096, second)
	broken.Store(true)
	c.want(eio, cmdFlush, 0, 0, nil)
	after := syncs.Load()
	c.want(eio, cmdFlush, 0, 0, nil)
	c.want(eio, cmdWrite, fua, 8192, first)
	c.want(eio, cmdWrite, 0, 8192, first)
	c.want(eio, cmdTrim, 0, 0, nil)
	for off, want := range map[uint64][]byte{0: first, 4096: second} {
		if got := c.want(0, cmdRead, 0, off, make([]byte, 4096)); !bytes.Equal(got, want) {
			t.Errorf("byte %d reads something else", off)
		}
	}
	stop()
	if err := v.Close(); err == nil {
		t.Error("close of a failed volume reports success")
	}
	if n := syncs.Load() - after; n > 0 {
		t.Errorf("%d more syncs after one had failed", n)
	}
	v = openOn(t, d)
	c, stop = serveNBD(t, v)
	if got := c.want(0, cmdRead, 0, 0, make([]byte, 4096)); !bytes.Equal(got, first) {
		t.Error("what was flushed is lost")
	}
	c.want(0, cmdWrite, fua, 8192, first)
	c.want(0, cmdFlush, 0, 0, nil)
	stop()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func openOn(t *testing.T, d disk.Disk) *aodi.Volume {
	t.Helper()
	v, err := aodi.OpenOn(d, aodi.Options{DurableInterval: time.Hour, CheckpointInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// serveNBD serves the volume as the daemon does, to one client.
func serveNBD(t *testing.T, v *aodi.Volume) (c *client, stop func()) {
	t.Helper()
	s := nbdsrv.New(nbdsrv.Config{})
	if err := s.AddExport(export("disk", v)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c = &client{t, nc}
	c.greet()
	return c, func() {
		nc.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	}
}

// The numbers of the NBD protocol.
const (
	cmdRead, cmdWrite, cmdFlush, cmdTrim = 0, 1, 3, 4
	fua                                  = 1
	eio                                  = 5
)

// client speaks just enough NBD: EXPORT_NAME, simple replies, one request at a time.
type client struct {
	t *testing.T
	net.Conn
}

func (c *client) recv(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *client) greet() {
	c.t.Helper()
	c.recv(18)
	if _, err := io.WriteString(c, "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x04disk"); err != nil {
		c.t.Fatal(err)
	}
	c.recv(10)
}

// want sends a request and ensures that this error value answers it. A read takes as many bytes as p has.
func (c *client) want(code uint32, cmd, flags uint16, off uint64, p []byte) []byte {
	c.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, 7)
	b = binary.BigEndian.AppendUint64(b, off)
	n := len(p)
	if cmd == cmdTrim {
		n = 4096
	}
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	if cmd == cmdWrite {
		b = append(b, p...)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
	if got := binary.BigEndian.Uint32(c.recv(16)[4:]); got != code {
		c.t.Fatalf("command %d is answered with error %d, not %d", cmd, got, code)
	}
	if cmd == cmdRead && code == 0 {
		return c.recv(len(p))
	}
	return nil
}

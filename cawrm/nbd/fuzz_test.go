package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"cawrm/cawrm/nbd"
)

// says is a connection to a server that says b, whatever it hears, and hangs up.
type says struct {
	net.Conn // nil: nothing else is called
	*bytes.Reader
}

func (s says) Read(b []byte) (int, error)       { return s.Reader.Read(b) }
func (s says) Write(b []byte) (int, error)      { return len(b), nil }
func (s says) Close() error                     { return nil }
func (s says) SetDeadline(time.Time) error      { return nil }
func (s says) SetReadDeadline(time.Time) error  { return nil }
func (s says) SetWriteDeadline(time.Time) error { return nil }

func greeting(flags uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte("NBDMAGICIHAVEOPT"), flags)
}

func optionReply(kind uint32, p ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
	b = binary.BigEndian.AppendUint32(b, 7)
	b = binary.BigEndian.AppendUint32(b, kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}

func reply(code uint32, cookie uint64, data ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x67446698)
	b = binary.BigEndian.AppendUint32(b, code)
	return append(binary.BigEndian.AppendUint64(b, cookie), data...)
}

// FuzzClient ensures that a client takes any bytes from a server: an export that it opens can be a copy, and each request is
// given back once.
func FuzzClient(f *testing.F) {
	export := []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x2d}
	open := bytes.Join([][]byte{greeting(3), optionReply(3, export...), optionReply(3, 0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0), optionReply(1)}, nil)
	f.Add(bytes.Join([][]byte{open, reply(0, 1, make([]byte, 4096)...), reply(0, 2), reply(5, 3)}, nil))
	f.Add(bytes.Join([][]byte{open, reply(0, 2), reply(0, 2)}, nil))
	f.Add(bytes.Join([][]byte{greeting(1), optionReply(1<<31 | 1), {0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 124), reply(28, 3)}, nil))
	f.Add(append(greeting(3), optionReply(1<<31|6, []byte("no such export")...)...))
	f.Add(append(greeting(3), "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\xff\xff\xff\xff"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := nbd.Open(says{Reader: bytes.NewReader(b)}, "vm")
		if err != nil {
			return
		}
		defer c.Close()
		if c.Size() < 0 || c.MaxPayload() < 4096 || c.MaxPayload() > 32<<20 || c.Can(nbd.FlagReadOnly) {
			t.Fatalf("size %d, at most %d a request", c.Size(), c.MaxPayload())
		}
		started := 0
		for i, r := range []*nbd.Request{{Command: nbd.Read, Length: 4096, Data: make([]byte, 4096)}, {Command: nbd.Write, Length: 4096, Data: make([]byte, 4096)}, {Command: nbd.Flush}} {
			if r.Tag = i; c.Start(r) == nil {
				started++
			}
		}
		<-c.Ended()
		given := map[int]bool{}
		for range len(c.Done()) {
			r := <-c.Done()
			if given[r.Tag] {
				t.Errorf("request %d is given back twice", r.Tag)
			}
			given[r.Tag] = true
		}
		if len(given) < started {
			t.Errorf("%d of %d requests are given back", len(given), started)
		}
		if err := c.Err(); err == nil || err == io.EOF {
			t.Errorf("it is over with %v", err)
		}
	})
}

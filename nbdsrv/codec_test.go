package nbdsrv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// TestDecodeCompact compares the decoder by hand with the one by reflection.
func TestDecodeCompact(t *testing.T) {
	h := protocol.TransmissionRequestHeader{
		RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST, CommandFlags: 0x1234, Type: 0x5678,
		Handle: 0x1122334455667788, Offset: 0x99aabbccddeeff00, Length: 0xdeadbeef,
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, h); err != nil || b.Len() != requestSize {
		t.Fatal(err, b.Len())
	}
	r, err := simple.decode(b.Bytes())
	if err != nil || r != (request{h.Handle, h.Offset, uint64(h.Length), h.CommandFlags, h.Type}) {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := extended.decode(append(b.Bytes(), 0, 0, 0, 0)); err != errMagic {
		t.Fatal(err)
	}
}

func TestSimpleReply(t *testing.T) {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, protocol.TransmissionReplyHeader{
		ReplyMagic: protocol.TRANSMISSION_MAGIC_REPLY, Error: 5, Handle: 77,
	})
	if got := appendSimple(nil, &request{cookie: 77}, 5); !bytes.Equal(got, b.Bytes()) {
		t.Fatalf("%x", got)
	}
}

func TestWireError(t *testing.T) {
	for err, want := range map[error]uint32{
		nil: 0, io.EOF: errIO, syscall.EIO: errIO, syscall.EPERM: errPerm, syscall.EROFS: errPerm,
		syscall.ENOMEM: errNoMem, syscall.EINVAL: errInval, syscall.ENOSPC: errNoSpace,
		syscall.EDQUOT: errNoSpace, syscall.EFBIG: errNoSpace, syscall.EOVERFLOW: errOverflow,
		syscall.ENOTSUP: errNotSup, syscall.ESHUTDOWN: errShutdown, syscall.EBADF: errIO,
		fmt.Errorf("segment 3: %w", syscall.ENOSPC):               errNoSpace,
		&fs.PathError{Op: "write", Path: "x", Err: syscall.EROFS}: errPerm,
		errors.Join(errors.New("a"), syscall.EINVAL):              errInval,
	} {
		if got := wireError(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestBufferClasses(t *testing.T) {
	for _, x := range []struct {
		n    int
		size int64
	}{{0, 4096}, {1, 4096}, {4096, 4096}, {4097, 8192}, {1 << 20, 1 << 20}, {1<<20 + 1, 2 << 20}, {LargestMaxPayload, LargestMaxPayload}} {
		b := newBuffer(x.n)
		if bufferSize(x.n) != x.size || int64(len(b.data())) != x.size {
			t.Errorf("%d: %d %d", x.n, bufferSize(x.n), len(b.data()))
		}
		b.release()
	}
}

func TestExtentScan(t *testing.T) {
	type in struct {
		n     int64
		flags uint32
	}
	for _, x := range []struct {
		name     string
		most     int
		least    uint64
		in       []in
		want     []extent
		complete bool
	}{
		{"merge", 9, 0, []in{{10, 3}, {20, 3}, {70, 0}}, []extent{{30, 3}, {70, 0}}, true},
		{"cut at the end", 9, 0, []in{{60, 3}, {1 << 40, 0}}, []extent{{60, 3}, {40, 0}}, true},
		{"most", 1, 0, []in{{60, 3}, {10, 3}, {30, 0}}, []extent{{70, 3}}, false},
		{"reserved bits", 9, 0, []in{{50, 0xfffffffc}, {50, 0}}, []extent{{100, 0}}, true},
		{"short hole", 9, 20, []in{{50, 0}, {19, 3}, {31, 0}}, []extent{{100, 0}}, true},
		{"hole that is not zero", 9, 20, []in{{50, StateHole}, {50, StateZero}}, []extent{{50, 0}, {50, StateZero}}, true},
		{"nonsense", 9, 0, []in{{50, 0}, {0, 0}}, []extent{{50, 0}}, false},
	} {
		var s extentScan
		s.bind()
		s.start(100, x.most, x.least)
		for _, i := range x.in {
			if !s.visit(i.n, i.flags) {
				break
			}
		}
		if fmt.Sprint(s.list) != fmt.Sprint(x.want) || s.complete() != x.complete {
			t.Errorf("%s: %v complete %v", x.name, s.list, s.complete())
		}
	}
}

// FuzzRequest checks the promises that check makes to a device, for any header.
func FuzzRequest(f *testing.F) {
	for m := range uint8(3) {
		for typ := range byte(10) {
			b := make([]byte, extRequestSize)
			binary.BigEndian.PutUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
			if mode(m) == extended {
				binary.BigEndian.PutUint32(b, extendedReqMagic)
			}
			b[7], b[27] = typ, 100
			f.Add(m, b, uint64(1<<20), uint32(1), true)
		}
	}
	f.Fuzz(func(t *testing.T, m uint8, b []byte, size uint64, block uint32, meta bool) {
		if len(b) < extRequestSize || block == 0 || block&(block-1) != 0 || block > 65536 || size > 1<<62 {
			return
		}
		v := view{
			export: &Export{Device: quietDev{}, MinBlock: block, MaxPayload: DefaultMaxPayload},
			size:   size &^ uint64(block-1), mode: mode(m % 3), metaSelected: meta && m%3 != 0,
		}
		r, err := v.mode.decode(b)
		if err != nil {
			return
		}
		if why := v.check(&r); why.code != 0 || r.typ == cmdFlush || r.flags&cmdFlagPayloadLen != 0 && r.typ == cmdBlockStatus {
			return
		}
		if r.offset+r.length < r.offset || r.offset+r.length > v.size || (r.offset|r.length)%uint64(block) != 0 {
			t.Fatalf("%+v let through", r)
		}
		if r.typ <= 1 && r.length > DefaultMaxPayload {
			t.Fatalf("%+v is too large", r)
		}
		if r.typ == cmdBlockStatus && (!v.metaSelected || r.length == 0) {
			t.Fatalf("%+v let through", r)
		}
	})
}

// quietDev accepts everything and is empty.
type quietDev struct{}

func (quietDev) Size() int64                             { return 1 << 30 }
func (quietDev) ReadAt(p []byte, _ int64) error          { clear(p); return nil }
func (quietDev) WriteAt([]byte, int64, bool) error       { return nil }
func (quietDev) Flush() error                            { return nil }
func (quietDev) Trim(_, _ int64, _ bool) error           { return nil }
func (quietDev) WriteZeroes(_, _ int64, _, _ bool) error { return nil }
func (quietDev) Extents(_, n int64, fn func(int64, uint32) bool) error {
	fn(n, StateHole|StateZero)
	return nil
}

// FuzzConnection feeds a whole connection, handshake and requests; the server must come to an end
// by itself when the client has said all.
func FuzzConnection(f *testing.F) {
	opt := func(id uint32, data string) string {
		b := binary.BigEndian.AppendUint64(nil, protocol.NEGOTIATION_MAGIC_OPTION)
		b = binary.BigEndian.AppendUint32(b, id)
		return string(binary.BigEndian.AppendUint32(b, uint32(len(data)))) + data
	}
	const flags = "\x00\x00\x00\x03"
	const meta = "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation"
	request := func(m mode, typ byte, n byte) string {
		b := make([]byte, m.headerSize())
		binary.BigEndian.PutUint32(b, protocol.TRANSMISSION_MAGIC_REQUEST)
		if m == extended {
			binary.BigEndian.PutUint32(b, extendedReqMagic)
		}
		b[7], b[len(b)-1] = typ, n
		return string(b)
	}
	f.Add([]byte(flags + opt(1, "") + request(simple, 0, 9)))
	f.Add([]byte(flags + opt(3, "") + opt(5, "") + opt(2, "")))
	f.Add([]byte(flags + opt(8, "") + opt(10, meta) + opt(7, "\x00\x00\x00\x00\x00\x00") + request(structured, 7, 99) + request(structured, 1, 1) + "x"))
	f.Add([]byte(flags + opt(11, "") + opt(9, meta) + opt(7, "\x00\x00\x00\x00\x00\x01\x00\x03") + request(extended, 3, 0) + request(extended, 2, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{HandshakeTimeout: 5 * time.Second})
		if err := s.AddExport(Export{Name: "x", Device: quietDev{}}); err != nil {
			t.Fatal(err)
		}
		near, far := newStreamPair(t)
		s.admit(far)
		go func() {
			_, _ = near.Write(b)
			_ = near.CloseWrite()
		}()
		_ = near.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, near); errors.Is(err, errTimeout) {
			t.Fatal("the connection does not end")
		}
		near.Close()
		s.running.Wait()
		if n := s.memory.used.Load(); n != 0 {
			t.Fatalf("%d bytes not given back", n)
		}
	})
}

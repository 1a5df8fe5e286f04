package nbdkernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// transcript is a server that says what it has to say and keeps what it hears.
type transcript struct {
	io.Reader
	heard bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) { return t.heard.Write(p) }

func greeting(flags uint16) []byte {
	return join(uint64(0x4e42444d41474943), uint64(0x49484156454F5054), flags)
}

func reply(kind uint32, payload ...any) []byte {
	p := join(payload...)
	return append(join(uint64(0x3e889045565a9), uint32(7), kind, uint32(len(p))), p...)
}

func join(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if s, ok := v.(string); ok {
			v = []byte(s)
		}
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestNegotiate(t *testing.T) {
	const (
		info, ack            = 3, 1
		errUnsup, errUnknown = 1 | 1<<31, 6 | 1<<31
		errTLS, errPolicy    = 5 | 1<<31, 2 | 1<<31
	)
	export := reply(info, uint16(0), uint64(1<<30), uint16(0x16d))
	for _, c := range []struct {
		name  string
		reply [][]byte
		want  Export
		err   string
	}{
		{"size and block size", [][]byte{greeting(3), export, reply(info, uint16(3), uint32(512), uint32(4096), uint32(1<<25)), reply(ack)},
			Export{1 << 30, 0x16d, 512}, ""},
		{"size only", [][]byte{greeting(3), export, reply(ack)}, Export{1 << 30, 0x16d, 0}, ""},
		{"unknown information is skipped", [][]byte{greeting(3), reply(info, uint16(2), "a disk"), export, reply(ack)}, Export{1 << 30, 0x16d, 0}, ""},
		{"ack without export", [][]byte{greeting(3), reply(ack)}, Export{}, "did not tell the size"},
		{"unknown export", [][]byte{greeting(3), reply(errUnknown, "no such disk")}, Export{}, `no export "disk" (the server says: "no such disk")`},
		{"tls", [][]byte{greeting(3), reply(errTLS)}, Export{}, "wants TLS"},
		{"old server", [][]byte{greeting(3), reply(errUnsup)}, Export{}, "does not know NBD_OPT_GO"},
		{"policy", [][]byte{greeting(3), reply(errPolicy)}, Export{}, "error 2"},
		{"not fixed", [][]byte{greeting(2)}, Export{}, "fixed newstyle"},
		{"oldstyle", [][]byte{join(uint64(0x4e42444d41474943), uint64(0x0000420281861253), uint16(0))}, Export{}, "not an NBD server"},
		{"http", [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n")}, Export{}, "not an NBD server"},
		{"hangs up", nil, Export{}, "no greeting"},
		{"hangs up later", [][]byte{greeting(3), export}, Export{}, "no reply"},
		{"huge reply", [][]byte{greeting(3), join(uint64(0x3e889045565a9), uint32(7), uint32(3), uint32(1<<31))}, Export{}, "claims 2147483648 bytes"},
		{"foreign reply", [][]byte{greeting(3), join(uint64(0x3e889045565a9), uint32(6), uint32(1), uint32(0))}, Export{}, "not one to our option"},
		{"short export", [][]byte{greeting(3), reply(info, uint16(0), uint64(1))}, Export{}, "wrong length"},
		{"short block size", [][]byte{greeting(3), reply(info, uint16(3), uint64(1))}, Export{}, "wrong length"},
		{"empty information", [][]byte{greeting(3), reply(info)}, Export{}, "cut short"},
		{"huge export", [][]byte{greeting(3), reply(info, uint16(0), uint64(1<<63), uint16(1))}, Export{}, "claims a size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const rest = "the kernel's"
			said := append(bytes.Join(c.reply, nil), rest...)
			if c.err == "no greeting" || c.err == "no reply" {
				said = said[:len(said)-len(rest)]
			}
			server := &transcript{Reader: bytes.NewReader(said)}
			got, err := negotiate(server, "disk")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("%+v, %v; want %+v", got, err, c.want)
			}
			if left, _ := io.ReadAll(server); string(left) != rest {
				t.Errorf("read into the transmission phase: %q is left", left)
			}
			want := join(uint32(3), uint64(0x49484156454F5054), uint32(7), uint32(12), uint32(4), "disk", uint16(1), uint16(3))
			if !bytes.Equal(server.heard.Bytes(), want) {
				t.Errorf("said %x\nwant %x", server.heard.Bytes(), want)
			}
		})
	}
}

func TestDialNamesTheAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"))
			c.Close()
		}
	}()
	_, _, err = Dial(context.Background(), "unix", path, "disk")
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not an NBD server") {
		t.Error(err)
	}
}

package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"cawrm/nbdsrv"
)

const mib = 1 << 20

func two() []nbdsrv.Export {
	return []nbdsrv.Export{
		{Name: "alpha", Description: "the first", Device: newMemDev(mib), MultiConn: true},
		{Name: "beta", Device: newMemDev(2 * mib), ReadOnly: true, Rotational: true, MinBlock: 512, PreferredBlock: 8192, MaxPayload: 4 * mib},
	}
}

// TestTranscripts plays whole handshakes byte by byte: testdata/handshake/*.txt holds lines "C hex"
// that the client sends, "S hex" that the server must answer with, and "S end" for a closed
// connection. Blanks in the hex and lines that start with # are for the reader.
func TestTranscripts(t *testing.T) {
	files, _ := os.ReadDir("testdata/handshake")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(f.Name(), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile("testdata/handshake/" + f.Name())
			if err != nil {
				t.Fatal(err)
			}
			nc := serve(t, nbdsrv.Config{}, two()...).raw()
			for i, line := range strings.Split(string(text), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				if line == "S end" {
					(&client{t: t, nc: nc}).closed()
					continue
				}
				b, err := hex.DecodeString(strings.ReplaceAll(line[1:], " ", ""))
				if err != nil {
					t.Fatalf("line %d: %v", i+1, err)
				}
				if line[0] == 'C' {
					if _, err := nc.Write(b); err != nil {
						t.Fatalf("line %d: %v", i+1, err)
					}
					continue
				}
				got := make([]byte, len(b))
				n, err := io.ReadFull(nc, got)
				if !bytes.Equal(got, b) {
					t.Fatalf("line %d: got  %x (%v)\nwant %x", i+1, got[:n], err, b)
				}
			}
		})
	}
}

func TestGreeting(t *testing.T) { // 1
	h := serve(t, nbdsrv.Config{}, two()...)
	nc := h.raw()
	b := make([]byte, 18)
	if _, err := io.ReadFull(nc, b); err != nil || string(b[:16]) != "NBDMAGICIHAVEOPT" || b[16] != 0 || b[17] != 3 {
		t.Fatalf("%x %v", b, err)
	}
}

func TestUnknownClientFlagsClose(t *testing.T) { // 2
	h := serve(t, nbdsrv.Config{}, two()...)
	for _, f := range []uint32{4, 1<<31 | 3, 0xffffffff, 0x10000} {
		h.connect(f).closed()
	}
}

func TestExportName(t *testing.T) { // 3
	h := serve(t, nbdsrv.Config{}, two()...)
	for _, flags := range []uint32{0, 1, 2, 3} {
		for _, name := range []string{"", "alpha"} {
			c := h.connect(flags)
			c.send(optionBytes(optExportName, []byte(name)))
			b := c.recv(10)
			if binary.BigEndian.Uint64(b) != mib || b[9]&1 == 0 {
				t.Fatalf("%x", b)
			}
			if flags&2 == 0 && !bytes.Equal(c.recv(124), make([]byte, 124)) {
				t.Fatal("reserved bytes are not zero")
			}
			c.write(100, []byte("hello"), 0)
			if string(c.read(100, 5)) != "hello" {
				t.Fatal("read back")
			}
		}
	}
	c := h.connect(3)
	c.send(optionBytes(optExportName, []byte("nosuch")))
	c.closed()
}

func TestInfoThenGo(t *testing.T) { // 4
	d := newMemDev(mib)
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "x", Device: d})
	c := h.connect(3)
	a := c.option(optInfo, infoRequest("x", 1, 3))
	if b := c.option(optInfo, infoRequest("x", 1, 3)); !equalReplies(a, b) {
		t.Fatalf("repeated INFO: %x then %x", a, b)
	}
	d.mu.Lock()
	d.data = append(d.data, make([]byte, mib)...) // grows between the two
	d.mu.Unlock()
	if b := c.option(optGo, infoRequest("x", 1, 3)); !equalReplies(a, b) {
		t.Fatalf("INFO %x then GO %x", a, b)
	}
}

func equalReplies(a, b []optReply) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].typ != b[i].typ || !bytes.Equal(a[i].data, b[i].data) {
			return false
		}
	}
	return true
}

// infos maps information types to payloads.
func infos(t *testing.T, r []optReply) map[uint16][]byte {
	t.Helper()
	m := map[uint16][]byte{}
	for _, x := range r[:len(r)-1] {
		typ := binary.BigEndian.Uint16(x.data)
		if x.typ != repInfo || m[typ] != nil {
			t.Fatalf("replies %x", r)
		}
		m[typ] = x.data[2:]
	}
	if r[len(r)-1].typ != repAck || m[0] == nil {
		t.Fatalf("replies %x", r)
	}
	return m
}

func TestInfoRequests(t *testing.T) { // 5
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	m := infos(t, c.option(optInfo, infoRequest("", 1, 2, 3, 77, 0, 0xffff)))
	if len(m) != 4 || string(m[1]) != "alpha" || string(m[2]) != "the first" {
		t.Fatalf("%v", m)
	}
	if !bytes.Equal(m[3], []byte{0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0}) {
		t.Fatalf("block size %x", m[3])
	}
	m = infos(t, c.option(optInfo, infoRequest("beta", 3)))
	if len(m) != 2 || !bytes.Equal(m[3], []byte{0, 0, 2, 0, 0, 0, 32, 0, 0, 64, 0, 0}) {
		t.Fatalf("%x", m)
	}
}

func TestGoWithoutBlockSize(t *testing.T) { // 6
	h := serve(t, nbdsrv.Config{}, two()...)
	c := h.openExport(compact, "beta") // minimum block 512, as nbd-client meets it
	c.must(einval, req{typ: cmdRead, off: 1, length: 512})
	c.must(einval, req{typ: cmdRead, off: 512, length: 5})
	c.must(0, req{typ: cmdRead, off: 512, length: 512})
}

func TestUnknownExport(t *testing.T) { // 7
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	for _, id := range []uint32{optInfo, optGo} {
		c.refused(errUnknown, id, infoRequest("nosuch", 3))
	}
	c.refused(errUnknown, optInfo, infoRequest("alpha\x00"))
	c.enter("alpha")
}

func TestMalformedInfo(t *testing.T) { // 8
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	for _, id := range []uint32{optInfo, optGo} {
		for _, data := range [][]byte{
			nil,
			{0},
			{0, 0, 0},
			{0, 0, 0, 5, 'a'},
			{0xff, 0xff, 0xff, 0xff, 'a', 0, 0},
			str("alpha"),
			append(str("alpha"), 0),
			append(str("alpha"), 0, 1),
			append(str("alpha"), 0, 2, 0, 1),
			append(infoRequest("alpha", 1), 0),
			append(infoRequest("alpha", 1), 0, 3),
			infoRequest(strings.Repeat("n", 4097)),
		} {
			c.refused(errInvalid, id, data)
		}
	}
	c.enter("alpha")
}

func TestAbort(t *testing.T) { // 9
	h := serve(t, nbdsrv.Config{}, two()...)
	for _, data := range [][]byte{nil, []byte("ignored")} {
		c := h.connect(3)
		c.ack(optAbort, data)
		c.closed()
	}
	c := h.connect(3)
	c.send(optionBytes(optAbort, nil))
	c.nc.Close() // without reading the answer
}

func TestList(t *testing.T) { // 10
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	r := c.option(optList, nil)
	if len(r) != 3 || r[0].typ != repServer || string(r[0].data) != "\x00\x00\x00\x05alphathe first" || string(r[1].data) != "\x00\x00\x00\x04beta" {
		t.Fatalf("%v", r)
	}
	c.refused(errInvalid, optList, []byte("x"))
	c.refused(errInvalid, optList, make([]byte, 100<<10))
	c.enter("beta")
}

func TestUnknownOptions(t *testing.T) { // 11
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	for _, id := range []uint32{0, 4, 12, 1 << 20, 0xffffffff} {
		for _, n := range []int{0, 1, 4096, 64 << 10, 64<<10 + 1, 300 << 10, 2 * mib} {
			c.refused(errUnsup, id, make([]byte, n))
		}
	}
	c.enter("alpha")
}

func TestStructuredReplyOption(t *testing.T) { // 14
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	flags := func() uint16 {
		return binary.BigEndian.Uint16(infos(t, c.option(optInfo, infoRequest("alpha")))[0][8:])
	}
	if flags()&(1<<7) != 0 {
		t.Fatal("DF advertised without structured replies")
	}
	c.refused(errInvalid, optStructured, []byte{0})
	if flags()&(1<<7) != 0 {
		t.Fatal("DF advertised after a refused option")
	}
	c.ack(optStructured, nil)
	c.ack(optStructured, nil)
	if flags()&(1<<7) == 0 {
		t.Fatal("DF not advertised")
	}
}

func TestTransmissionFlags(t *testing.T) { // 14, 23, 24, 25, 26, 27, 29, 37, 39
	h := serve(t, nbdsrv.Config{}, two()...)
	const all = 1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<10 | 1<<11
	for mode, want := range []uint16{all, all | 1<<7, all | 1<<7 | 1<<12} {
		if got := h.open(mode).flags; got != want {
			t.Errorf("%s: %016b, want %016b", modeNames[mode], got, want)
		}
	}
	const readOnly = 1 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<10
	if got := h.openExport(compact, "beta").flags; got != readOnly {
		t.Errorf("read-only: %016b, want %016b", got, readOnly)
	}
	c := h.connect(3)
	c.ack(optExtended, nil)
	if c.enter("alpha"); c.flags&(1<<12) != 0 {
		t.Error("BLOCK_STATUS_PAYLOAD without a context")
	}
}

func TestMetaContextOptions(t *testing.T) { // 15
	h := serve(t, nbdsrv.Config{}, two()...)
	c := h.connect(3)
	c.refused(errInvalid, optSetMeta, metaQuery("alpha", "base:allocation"))
	c.ack(optStructured, nil)
	found := func(id uint32, name string, queries ...string) bool {
		t.Helper()
		r := c.option(id, metaQuery(name, queries...))
		switch {
		case len(r) == 1 && r[0].typ == repAck:
			return false
		case len(r) == 2 && r[0].typ == repMeta && r[1].typ == repAck && string(r[0].data[4:]) == "base:allocation":
			return true
		}
		t.Fatalf("%v %q: %x", id, queries, r)
		return false
	}
	for _, q := range []struct {
		queries   []string
		list, set bool
	}{
		{nil, true, false},
		{[]string{"base:"}, true, false},
		{[]string{"base:allocation"}, true, true},
		{[]string{"base:allocation", "base:", "base:allocation"}, true, true},
		{[]string{"base:nosuch"}, false, false},
		{[]string{"qemu:dirty-bitmap:x", "x-y:"}, false, false},
		{[]string{"qemu:", "base:allocation"}, true, true},
		{[]string{"base:allocation2"}, false, false},
		{[]string{"nocolon", ""}, false, false},
	} {
		if got := found(optListMeta, "alpha", q.queries...); got != q.list {
			t.Errorf("LIST %q: %v", q.queries, got)
		}
		if got := found(optSetMeta, "alpha", q.queries...); got != q.set {
			t.Errorf("SET %q: %v", q.queries, got)
		}
	}
	for _, id := range []uint32{optListMeta, optSetMeta} {
		good := metaQuery("alpha", "base:allocation")
		for _, data := range [][]byte{
			nil, {0, 0, 0}, str("alpha"), good[:len(good)-1], append(bytes.Clone(good), 0),
			{0xff, 0xff, 0xff, 0xff}, append(str("alpha"), 0xff, 0xff, 0xff, 0xff),
			append(str("alpha"), 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
			metaQuery("alpha", strings.Repeat("q", 4097)),
		} {
			c.refused(errInvalid, id, data)
		}
		c.refused(errUnknown, id, metaQuery("nosuch", "base:allocation"))
		c.refused(errTooBig, id, make([]byte, 70<<10))
	}
}

func TestMetaContextBinding(t *testing.T) { // 15
	h := serve(t, nbdsrv.Config{}, two()...)
	for _, x := range []struct {
		name    string
		set     [][]byte
		enter   string
		allowed bool
	}{
		{"same", [][]byte{metaQuery("alpha", "base:allocation")}, "alpha", true},
		{"other", [][]byte{metaQuery("alpha", "base:allocation")}, "beta", false},
		{"default is first", [][]byte{metaQuery("", "base:allocation")}, "alpha", true},
		{"last wins", [][]byte{metaQuery("alpha", "base:allocation"), metaQuery("alpha")}, "alpha", false},
		{"failed wins", [][]byte{metaQuery("alpha", "base:allocation"), {1}}, "alpha", false},
		{"too large wins", [][]byte{metaQuery("alpha", "base:allocation"), make([]byte, 70<<10)}, "alpha", false},
		{"none", nil, "alpha", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := h.connect(3)
			c.t = t
			c.ack(optStructured, nil)
			for _, s := range x.set {
				c.option(optSetMeta, s)
			}
			c.mode = structured
			c.enter(x.enter)
			want := uint32(einval)
			if x.allowed {
				want = 0
			}
			c.must(want, req{typ: cmdStatus, length: 4096})
		})
	}
}

func TestExtendedHeadersOption(t *testing.T) { // 16
	h := serve(t, nbdsrv.Config{}, two()...)
	c := h.connect(3)
	c.refused(errInvalid, optExtended, []byte{0})
	c.ack(optStructured, nil)
	c.ack(optExtended, nil)
	c.ack(optExtended, nil)
	c.refused(errExtReqd, optStructured, nil)
	c.mode = extended
	c.enter("alpha")
	c.write(0, []byte("ext"), 0)
	c = h.connect(3)
	c.ack(optExtended, nil)
	c.send(optionBytes(optExportName, []byte("alpha")))
	c.closed()
}

func TestOptionLengths(t *testing.T) { // 17
	name := strings.Repeat("é", 2048)
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: name, Device: newMemDev(mib)})
	h.openExport(extended, name)
	c := h.connect(3)
	c.send(optionBytes(optExportName, []byte(name)))
	c.recv(10)
	for _, id := range []uint32{optExportName, optInfo, optGo, optList, optSetMeta, 99} {
		c := h.connect(3)
		b := binary.BigEndian.AppendUint64(nil, iHaveOpt)
		b = binary.BigEndian.AppendUint32(b, id)
		c.send(binary.BigEndian.AppendUint32(b, 0xffffffff))
		c.closed()
	}
	c = h.connect(3)
	c.send([]byte("not an option at all"))
	c.closed()
}

func TestOptionsBounded(t *testing.T) { // 18
	c := serve(t, nbdsrv.Config{}, two()...).connect(3)
	for range 4096 {
		c.ack(optStructured, nil)
	}
	c.closed()
}

func TestHandshakeTimeout(t *testing.T) { // 18
	h := serve(t, nbdsrv.Config{HandshakeTimeout: 50 * time.Millisecond}, two()...)
	silent := &client{t: t, nc: h.raw()}
	silent.recv(18)
	silent.closed()
	slow := h.connect(3)
	slow.send(optionBytes(optList, nil)[:15])
	slow.closed()
	// The bound ends with the handshake.
	c := h.open(structured)
	time.Sleep(150 * time.Millisecond)
	c.write(0, []byte("still here"), 0)
}

func TestConnectionLimit(t *testing.T) { // 18, 40
	h := serve(t, nbdsrv.Config{MaxConns: 2}, two()...)
	a, b := h.open(compact), h.open(compact)
	(&client{t: t, nc: h.raw()}).closed()
	a.nc.Close()
	eventually(t, "a slot becomes free", func() bool { return h.s.Stats().Connections < 2 })
	h.open(compact)
	b.write(0, []byte("x"), 0)
	if s := h.s.Stats(); s.Refused != 1 || s.Accepted != 3 {
		t.Fatalf("%+v", s)
	}
}

func TestAddExport(t *testing.T) {
	s := nbdsrv.New(nbdsrv.Config{})
	d := newMemDev(mib)
	for name, e := range map[string]nbdsrv.Export{
		"no device":  {Name: "a"},
		"name":       {Name: strings.Repeat("a", 4097), Device: d},
		"min":        {Device: d, MinBlock: 3},
		"min large":  {Device: d, MinBlock: 128 << 10, PreferredBlock: 128 << 10},
		"pref":       {Device: d, PreferredBlock: 5000},
		"pref small": {Device: d, MinBlock: 4096, PreferredBlock: 512},
		"payload":    {Device: d, MaxPayload: 4096},
		"large":      {Device: d, MaxPayload: 65 << 20},
	} {
		if s.AddExport(e) == nil {
			t.Error(name)
		}
	}
	if err := s.AddExport(nbdsrv.Export{Name: "a", Device: d, MinBlock: 8192}); err != nil {
		t.Error(err)
	}
	if s.AddExport(nbdsrv.Export{Name: "a", Device: d}) == nil {
		t.Error("the same name twice")
	}
}

func TestNamedEmptyExport(t *testing.T) {
	h := serve(t, nbdsrv.Config{}, append(two(), nbdsrv.Export{Device: newMemDev(4 * mib)})...)
	if c := h.open(compact); c.size != 4*mib {
		t.Fatalf("size %d", c.size)
	}
	h = serve(t, nbdsrv.Config{})
	h.connect(3).refused(errUnknown, optGo, infoRequest(""))
}

func TestSizeIsWholeBlocks(t *testing.T) {
	d := newMemDev(mib)
	d.data = d.data[:mib-100]
	h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Name: "a", Device: d, MinBlock: 512}, nbdsrv.Export{Name: "b", Device: d})
	if a, b := h.openExport(compact, "a"), h.openExport(compact, "b"); a.size != mib-512 || b.size != mib-100 {
		t.Fatalf("%d %d", a.size, b.size)
	}
}

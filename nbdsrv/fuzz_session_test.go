package nbdsrv_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"cawrm/nbdsrv"
)

// FuzzSession sends well-formed requests with any content over each kind of headers, one after the other, to a device in
// memory. Each is answered once; what succeeds has happened, and lies within the export; what fails has changed nothing.
//
//	 0     1       3       11      15
//	+-----+-------+-------+-------+
//	|type | flags |offset |length |
//	+-----+-------+-------+-------+
func FuzzSession(f *testing.F) {
	one := func(typ byte, flags uint16, off uint64, n uint32) []byte {
		b := binary.LittleEndian.AppendUint16([]byte{typ}, flags)
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(b, off), n)
	}
	var all []byte
	for typ := range byte(9) {
		for _, place := range [][2]uint64{{0, page}, {sessionSize - page, page}, {sessionSize - page, page + 1}, {1 << 63, 1}, {5, 1<<32 - 1}, {7, 0}} {
			all = append(all, one(typ, uint16(typ&3), place[0], uint32(place[1]))...)
		}
	}
	for mode := range byte(3) {
		f.Add(mode, one(cmdWrite, fFUA, 4096, 8192))
		f.Add(mode, all)
	}
	f.Fuzz(func(t *testing.T, mode byte, b []byte) {
		d := newMemDev(sessionSize)
		h := serve(t, nbdsrv.Config{}, nbdsrv.Export{Device: d})
		c := h.open(int(mode % 3))
		model := make([]byte, sessionSize)
		for n := byte(1); len(b) >= 15 && n < 100; n++ {
			s := session{c: c, model: model, fill: n}
			s.step(req{typ: uint16(b[0]) % 9, flags: binary.LittleEndian.Uint16(b[1:]), off: binary.LittleEndian.Uint64(b[3:]),
				length: uint64(binary.LittleEndian.Uint32(b[11:]))})
			b = b[15:]
		}
		if got := d.readAll(make([]byte, sessionSize)); !bytes.Equal(got, model) {
			t.Error("the device holds something else than what succeeded")
		}
		c.nc.Close()
	})
}

const sessionSize = 64 << 10

type session struct {
	c     *client
	model []byte
	fill  byte
}

func (s *session) step(r req) {
	t := s.c.t
	switch r.typ {
	case cmdDisc:
		r.typ = 8 // unknown
	case cmdWrite:
		r.length %= 2 * sessionSize
		r.payload = bytes.Repeat([]byte{s.fill}, int(r.length))
	}
	r.flags &^= fPayload // the client sets it where there is a payload
	inside := r.off <= sessionSize && r.length <= sessionSize-r.off
	got := s.c.do(r)
	switch {
	case got.err != 0:
		return
	case r.typ > cmdStatus:
		t.Errorf("%+v is unknown, and succeeds", r)
	case r.typ != cmdFlush && !inside:
		t.Errorf("%+v lies outside, and succeeds", r)
	case r.typ == cmdRead:
		if !bytes.Equal(got.data, s.model[r.off:r.off+r.length]) && r.length > 0 {
			t.Errorf("%+v reads something else", r)
		}
	case r.typ == cmdWrite:
		copy(s.model[r.off:], r.payload)
	case r.typ == cmdZeroes:
		clear(s.model[r.off : r.off+r.length])
	case r.typ == cmdTrim: // a hint, which this device takes for whole pages
		if first, end := (r.off+page-1)/page*page, (r.off+r.length)/page*page; first < end {
			clear(s.model[first:end])
		}
	}
}

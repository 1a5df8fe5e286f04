package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

var be = binary.BigEndian

// What go-nbd's pkg/protocol lacks, in the words of the protocol document (NetworkBlockDevice/nbd, doc/proto.md).
const (
	flagNoZeroes = 1 << 1
	optExport    = 1
	zeroes       = 124
	maxReply     = 64 << 10 // no server has reason to say more in one reply
	repError     = 1 << 31

	minBlock   = 4096     // what is written is a multiple of it
	maxPayload = 32 << 20 // that every server takes
)

// ErrRefused is what a server says of an export that it does not give.
var ErrRefused = errors.New("the NBD server refuses")

// Open opens an export over a connection, which is the client's from then on. Errors: ErrRefused, and what is wrong with
// the other side.
func Open(conn net.Conn, export string) (*Client, error) {
	c := newClient(conn)
	if err := c.negotiate(export); err != nil {
		conn.Close()
		return nil, err
	}
	c.begin()
	return c, nil
}

func (c *Client) negotiate(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.r, hello[:]); err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	flags := be.Uint16(hello[16:])
	switch {
	case be.Uint64(hello[:]) != protocol.NEGOTIATION_MAGIC_OLDSTYLE || be.Uint64(hello[8:]) != protocol.NEGOTIATION_MAGIC_OPTION:
		return errors.New("the other side is not a newstyle NBD server")
	case flags&protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE == 0:
		return errors.New("the NBD server does not speak fixed newstyle")
	}
	b := be.AppendUint32(nil, uint32(flags&(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE|flagNoZeroes)))
	ask := be.AppendUint32(nil, uint32(len(export)))
	ask = append(ask, export...)
	ask = be.AppendUint16(ask, 1)
	ask = be.AppendUint16(ask, protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)
	if _, err := c.conn.Write(option(b, protocol.NEGOTIATION_ID_OPTION_GO, ask)); err != nil {
		return err
	}
	for {
		kind, p, err := c.optionReply()
		switch {
		case err != nil:
			return err
		case kind == protocol.NEGOTIATION_TYPE_REPLY_ACK:
			return c.check()
		case kind == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED:
			return c.exportName(export, flags&flagNoZeroes == 0)
		case kind&repError != 0:
			return fmt.Errorf("%w export %q: %s", ErrRefused, export, reason(kind, p))
		case kind == protocol.NEGOTIATION_TYPE_REPLY_INFO:
			c.info(p)
		}
	}
}

func option(b []byte, id uint32, p []byte) []byte {
	b = be.AppendUint64(b, protocol.NEGOTIATION_MAGIC_OPTION)
	b = be.AppendUint32(b, id)
	return append(be.AppendUint32(b, uint32(len(p))), p...)
}

func (c *Client) optionReply() (kind uint32, p []byte, err error) {
	var h [20]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, nil, fmt.Errorf("no answer to GO: %w", err)
	}
	n := be.Uint32(h[16:])
	if be.Uint64(h[:]) != protocol.NEGOTIATION_MAGIC_REPLY || n > maxReply {
		return 0, nil, fmt.Errorf("a malformed answer to GO, of %d bytes", n)
	}
	p = make([]byte, n)
	_, err = io.ReadFull(c.r, p)
	return be.Uint32(h[12:]), p, err
}

// info takes what is known of an export.
func (c *Client) info(p []byte) {
	switch {
	case len(p) >= 12 && be.Uint16(p) == protocol.NEGOTIATION_TYPE_INFO_EXPORT:
		c.size, c.flags = int64(be.Uint64(p[2:])), be.Uint16(p[10:])
	case len(p) >= 14 && be.Uint16(p) == protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
		c.block, c.payload = be.Uint32(p[2:]), be.Uint32(p[10:])
	}
}

// exportName is the way in for servers without GO. They hang up when there is no such export.
func (c *Client) exportName(export string, padded bool) error {
	if _, err := c.conn.Write(option(nil, optExport, []byte(export))); err != nil {
		return err
	}
	b := make([]byte, 10, 10+zeroes)
	if padded {
		b = b[:10+zeroes]
	}
	if _, err := io.ReadFull(c.r, b); err != nil {
		return fmt.Errorf("%w export %q, as it seems: %w", ErrRefused, export, err)
	}
	c.size, c.flags = int64(be.Uint64(b)), be.Uint16(b[8:])
	return c.check()
}

// check refuses what cannot be a copy.
func (c *Client) check() error {
	switch {
	case c.size < 0 || c.flags&protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS == 0:
		return fmt.Errorf("the NBD server says size %d and flags %#x", c.size, c.flags)
	case c.flags&FlagReadOnly != 0:
		return fmt.Errorf("%w writes: the export is read-only", ErrRefused)
	case c.block > minBlock:
		return fmt.Errorf("%w: its blocks are of %d bytes, what is written here of %d", ErrRefused, c.block, minBlock)
	}
	if c.payload < minBlock || c.payload > maxPayload {
		c.payload = maxPayload
	}
	return nil
}

func reason(kind uint32, text []byte) string {
	names := map[uint32]string{2: "policy", 3: "invalid", 5: "TLS is required", 6: "there is none of that name", 7: "it is stopping", 8: "block sizes are required"}
	what := names[kind&^repError]
	if what == "" {
		what = fmt.Sprintf("error %d", kind&^repError)
	}
	if len(text) > 0 {
		what += fmt.Sprintf(" (%.200q)", text)
	}
	return what
}

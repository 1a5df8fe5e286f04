package nbdclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// handshakeLimit bounds the handshake: a server that accepts and says nothing
// is an error, not a hang.
const handshakeLimit = 30 * time.Second

// Dial connects to addr, "host:port" or "unix:/path", and opens the export.
func Dial(ctx context.Context, addr, export string) (*Client, error) {
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), waiting: map[uint64]*Request{}}
	conn.SetDeadline(time.Now().Add(handshakeLimit))
	if err := c.handshake(export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open NBD export %q at %s: %w", export, addr, err)
	}
	conn.SetDeadline(time.Time{})
	c.ended = make(chan struct{})
	go c.runReplies()
	return c, nil
}

func (c *Client) handshake(export string) error {
	var greeting struct {
		Init, Option uint64
		Flags        uint16
	}
	if err := binary.Read(c.r, binary.BigEndian, &greeting); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if greeting.Init != magicInit || greeting.Option != magicOption {
		return errors.New("the greeting is not that of a newstyle NBD server")
	}
	if greeting.Flags&flagFixedNewstyle == 0 {
		return errors.New("the server does not speak fixed newstyle")
	}
	// Client flags, then NBD_OPT_GO: name length, name, no information asked.
	flags := uint32(greeting.Flags & (flagFixedNewstyle | flagNoZeroes))
	b := binary.BigEndian.AppendUint32(nil, flags)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(export)+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint16(b, 0)
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	for {
		done, err := c.optionReply()
		if done || err != nil {
			return err
		}
	}
}

// optionReply reads one reply to NBD_OPT_GO; done is the final one.
func (c *Client) optionReply() (done bool, err error) {
	var head struct {
		Magic             uint64
		Option, Type, Len uint32
	}
	if err := binary.Read(c.r, binary.BigEndian, &head); err != nil {
		return false, fmt.Errorf("reply to GO: %w", err)
	}
	if head.Magic != magicOptRep || head.Option != optGo || head.Len > maxOptReply {
		return false, fmt.Errorf("reply to GO is malformed: %+v", head)
	}
	data := make([]byte, head.Len)
	if _, err := io.ReadFull(c.r, data); err != nil {
		return false, fmt.Errorf("reply to GO: %w", err)
	}
	switch {
	case head.Type&repErrBit != 0:
		return false, fmt.Errorf("refused with reply %#x %s", head.Type, data)
	case head.Type == repInfo && len(data) == 12 && binary.BigEndian.Uint16(data) == infoExport:
		c.size = int64(binary.BigEndian.Uint64(data[2:]))
		c.flags = binary.BigEndian.Uint16(data[10:])
	case head.Type == repAck:
		if c.flags&HasFlags == 0 {
			return false, errors.New("the server acknowledged GO without saying the export's size")
		}
		return true, nil
	}
	return false, nil
}

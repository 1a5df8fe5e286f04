package nbdkernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Transmission flags that matter to the kernel, beside the ones that protocol has ("Transmission flags" in the
// protocol document).
const (
	FlagReadOnly        = 1 << 1
	FlagSendFlush       = 1 << 2
	FlagSendFUA         = 1 << 3
	FlagRotational      = 1 << 4
	FlagSendTrim        = 1 << 5
	FlagSendWriteZeroes = 1 << 6
	FlagMultiConn       = uint16(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
)

// What protocol lacks of the fixed newstyle negotiation.
const (
	handshakeNoZeroes = uint16(1 << 1)
	replyErrTLSReqd   = uint32(5 | 1<<31)
	replyIsError      = uint32(1 << 31)
	// maxReply bounds an option reply; the longest that a server has reason to send is a description of 4096 bytes.
	maxReply = 64 << 10
)

// handshakeTimeout bounds the negotiation: a server that takes longer is taken for dead.
const handshakeTimeout = 20 * time.Second

// Export is what the server said of it.
type Export struct {
	Size     int64  // bytes
	Flags    uint16 // transmission flags
	MinBlock uint32 // bytes; 0 when the server did not say
}

// ReadOnly tells that the server refuses writes.
func (e Export) ReadOnly() bool { return e.Flags&FlagReadOnly != 0 }

// Dial connects to an NBD server and negotiates the export up to the transmission phase. The caller closes the
// connection. Errors name the address; an export that the server does not have is an error of its text.
func Dial(ctx context.Context, network, address, name string) (net.Conn, Export, error) {
	c, err := (&net.Dialer{Timeout: handshakeTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, Export{}, err
	}
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	e, err := negotiate(c, name)
	if err != nil {
		c.Close()
		return nil, Export{}, fmt.Errorf("NBD handshake with %s: %w", address, err)
	}
	c.SetDeadline(time.Time{})
	return c, e, nil
}

// negotiate reads exactly what belongs to the negotiation and nothing of what follows it, since that is the kernel's.
func negotiate(c io.ReadWriter, name string) (Export, error) {
	if err := greet(c); err != nil {
		return Export{}, err
	}
	if err := sendGo(c, name); err != nil {
		return Export{}, err
	}
	var e Export
	exported := false
	for {
		kind, payload, err := readReply(c)
		if err != nil {
			return e, err
		}
		switch {
		case kind == protocol.NEGOTIATION_TYPE_REPLY_ACK && exported:
			return e, nil
		case kind == protocol.NEGOTIATION_TYPE_REPLY_ACK:
			return e, errors.New("the server did not tell the size of the export")
		case kind&replyIsError != 0:
			return e, replyError(kind, name, payload)
		case kind == protocol.NEGOTIATION_TYPE_REPLY_INFO:
			has, err := e.take(payload)
			if err != nil {
				return e, err
			}
			exported = exported || has
		}
	}
}

// greet checks that an NBD server speaks and answers its flags.
func greet(c io.ReadWriter) error {
	var hello protocol.NegotiationNewstyleHeader
	if err := binary.Read(c, binary.BigEndian, &hello); err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	if hello.OldstyleMagic != protocol.NEGOTIATION_MAGIC_OLDSTYLE || hello.OptionMagic != protocol.NEGOTIATION_MAGIC_OPTION {
		return errors.New("what answers there is not an NBD server of the newstyle kind")
	}
	if hello.HandshakeFlags&protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE == 0 {
		return errors.New("the server does not speak fixed newstyle")
	}
	flags := hello.HandshakeFlags & (protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE | handshakeNoZeroes)
	return binary.Write(c, binary.BigEndian, uint32(flags))
}

// sendGo sends NBD_OPT_GO with a request for the block sizes.
func sendGo(c io.Writer, name string) error {
	var b bytes.Buffer
	length := uint32(4 + len(name) + 2 + 2)
	head := protocol.NegotiationOptionHeader{
		OptionMagic: protocol.NEGOTIATION_MAGIC_OPTION, ID: protocol.NEGOTIATION_ID_OPTION_GO, Length: length,
	}
	// A bytes.Buffer takes everything.
	_ = binary.Write(&b, binary.BigEndian, head)
	_ = binary.Write(&b, binary.BigEndian, uint32(len(name)))
	b.WriteString(name)
	_ = binary.Write(&b, binary.BigEndian, []uint16{1, protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE})
	_, err := c.Write(b.Bytes())
	return err
}

func readReply(c io.Reader) (kind uint32, payload []byte, err error) {
	var head protocol.NegotiationReplyHeader
	if err := binary.Read(c, binary.BigEndian, &head); err != nil {
		return 0, nil, fmt.Errorf("no reply: %w", err)
	}
	switch {
	case head.ReplyMagic != protocol.NEGOTIATION_MAGIC_REPLY, head.ID != protocol.NEGOTIATION_ID_OPTION_GO:
		return 0, nil, errors.New("the server's reply is not one to our option")
	case head.Length > maxReply:
		return 0, nil, fmt.Errorf("the server's reply claims %d bytes", head.Length)
	}
	payload = make([]byte, head.Length)
	_, err = io.ReadFull(c, payload)
	return head.Type, payload, err
}

// take reads one NBD_REP_INFO; exported tells that it was the one with size and flags.
func (e *Export) take(p []byte) (exported bool, err error) {
	if len(p) < 2 {
		return false, errors.New("the server's information is cut short")
	}
	switch binary.BigEndian.Uint16(p) {
	case protocol.NEGOTIATION_TYPE_INFO_EXPORT:
		if len(p) != 12 {
			return false, errors.New("the server's export information has a wrong length")
		}
		size := binary.BigEndian.Uint64(p[2:])
		if size > 1<<63-1 {
			return false, fmt.Errorf("the server claims a size of %d bytes", size)
		}
		e.Size, e.Flags = int64(size), binary.BigEndian.Uint16(p[10:])
		return true, nil
	case protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
		if len(p) != 14 {
			return false, errors.New("the server's block sizes have a wrong length")
		}
		e.MinBlock = binary.BigEndian.Uint32(p[2:])
	}
	return false, nil
}

func replyError(kind uint32, name string, text []byte) error {
	why := ""
	if len(text) > 0 {
		why = fmt.Sprintf(" (the server says: %.200q)", text)
	}
	switch kind {
	case protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN:
		return fmt.Errorf("the server has no export %q%s", name, why)
	case replyErrTLSReqd:
		return fmt.Errorf("the server wants TLS, which the kernel's client does not speak; give serve a unix socket: --nbd unix:/path%s", why)
	case protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED:
		return fmt.Errorf("the server does not know NBD_OPT_GO%s", why)
	}
	return fmt.Errorf("the server refuses export %q with error %d%s", name, kind&^replyIsError, why)
}

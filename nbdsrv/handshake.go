package nbdsrv

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Bounds of the handshake, beside those in limits.go. Option data is parsed in place, in the read buffer.
const (
	maxOptionData = 64 << 10 // bytes of data that an option is parsed with
	maxOptionSkip = 16 << 20 // bytes of data that are skipped; beyond, the client is cut off
	maxOptions    = 4096     // options before the transmission phase
)

var (
	errClientFlags = errors.New("unknown client flags")
	errOptionMagic = errors.New("bad option magic")
	errOptions     = errors.New("too many options")
	errOptionSize  = errors.New("absurd option length")
	errNoExport    = errors.New("no such export")
	errNeedsTLS    = errors.New("TLS is required")
	errInjected    = errors.New("data before the TLS handshake")
	errExportName  = errors.New("NBD_OPT_EXPORT_NAME with extended headers")
	errAborted     = errors.New("aborted by the client")
	errFull        = errors.New("too many connections")
)

// haggle is what option haggling has settled so far. STARTTLS forgets it.
type haggle struct {
	mode mode
	meta *Export // the export of the last SET_META_CONTEXT that selected base:allocation
	// The last INFO, so that a GO right after it shows the same size even if the device grew.
	info     *Export
	infoSize uint64
}

// next says how haggling goes on after an option.
type next int

const (
	more     next = iota // another option follows
	transmit             // the view is settled
)

// handshake brings a connection to the transmission phase, with c.view set, or fails.
func (c *conn) handshake() error {
	if err := c.raw.SetDeadline(time.Now().Add(c.server.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	if err := c.greet(); err != nil {
		return err
	}
	for range maxOptions {
		n, err := c.nextOption()
		if err != nil {
			return err
		}
		if n == transmit {
			if err := c.flush(); err != nil {
				return err
			}
			return c.raw.SetDeadline(time.Time{})
		}
	}
	return errOptions
}

// greet sends the greeting and takes the client's flags.
func (c *conn) greet() error {
	b := binary.BigEndian.AppendUint64(c.out, protocol.NEGOTIATION_MAGIC_OLDSTYLE)
	b = binary.BigEndian.AppendUint64(b, protocol.NEGOTIATION_MAGIC_OPTION)
	c.out = binary.BigEndian.AppendUint16(b, protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE|flagNoZeroes)
	if err := c.need(4); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(c.take(4))
	if flags&^(clientFixed|clientNoZeroes) != 0 {
		return errClientFlags
	}
	c.fixed = flags&clientFixed != 0
	c.zeroes = flags&clientNoZeroes == 0
	return nil
}

// nextOption reads one option and answers it.
func (c *conn) nextOption() (next, error) {
	if err := c.need(optionHeaderSize); err != nil {
		return more, err
	}
	b := c.take(optionHeaderSize)
	h := protocol.NegotiationOptionHeader{
		OptionMagic: binary.BigEndian.Uint64(b),
		ID:          binary.BigEndian.Uint32(b[8:]),
		Length:      binary.BigEndian.Uint32(b[12:]),
	}
	switch {
	case h.OptionMagic != protocol.NEGOTIATION_MAGIC_OPTION:
		return more, errOptionMagic
	case h.Length > maxOptionSkip, h.Length > maxString && h.ID == optExportName:
		return more, errOptionSize
	case h.Length > maxOptionData:
		if err := c.skip(uint64(h.Length)); err != nil {
			return more, err
		}
		return c.option(h.ID, nil, true)
	}
	if int(h.Length) > len(c.in) {
		c.widen(maxOptionData)
	}
	if err := c.need(int(h.Length)); err != nil {
		return more, err
	}
	return c.option(h.ID, c.take(int(h.Length)), false)
}

// option answers one option. Its data, a piece of the read buffer, was skipped when it is large.
func (c *conn) option(id uint32, data []byte, large bool) (next, error) {
	info, infoSize := c.info, c.infoSize
	c.info = nil
	if id == protocol.NEGOTIATION_ID_OPTION_ABORT {
		c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
		return more, errors.Join(c.flush(), errAborted)
	}
	if c.draining.Load() {
		return c.refuseOption(id, repErrShutdown, errShuttingDown)
	}
	if c.server.cfg.RequireTLS && !c.secure && id != optStartTLS {
		return c.refuseOption(id, repErrTLSRequired, errNeedsTLS)
	}
	if large {
		if id == optSetMetaContext {
			c.meta = nil
		}
		c.reply(id, largeReply(id), "option data too large")
		return more, nil
	}
	switch id {
	case optExportName:
		return c.exportName(string(data))
	case protocol.NEGOTIATION_ID_OPTION_LIST:
		c.listExports(id, data)
	case optStartTLS:
		return more, c.startTLS(id, data)
	case protocol.NEGOTIATION_ID_OPTION_INFO:
		c.infoOrGo(id, data)
	case protocol.NEGOTIATION_ID_OPTION_GO:
		c.info, c.infoSize = info, infoSize
		return c.infoOrGo(id, data), nil
	case optStructuredReply, optExtendedHeaders:
		c.replyHeaders(id, data)
	case optListMetaContext, optSetMetaContext:
		c.metaContext(id, data)
	default:
		c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, "")
	}
	return more, nil
}

// refuseOption turns an option down; EXPORT_NAME, which cannot be answered, ends the session.
func (c *conn) refuseOption(id, reply uint32, err error) (next, error) {
	if id == optExportName || !c.fixed {
		return more, err
	}
	c.reply(id, reply, "")
	return more, nil
}

func largeReply(id uint32) uint32 {
	switch id {
	case protocol.NEGOTIATION_ID_OPTION_LIST, optStartTLS, optStructuredReply, optExtendedHeaders:
		return repErrInvalid // these take no data at all
	case protocol.NEGOTIATION_ID_OPTION_INFO, protocol.NEGOTIATION_ID_OPTION_GO, optListMetaContext, optSetMetaContext:
		return repErrTooBig
	}
	return protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
}

// startTLS upgrades the connection and forgets what was negotiated in the clear.
func (c *conn) startTLS(id uint32, data []byte) error {
	switch {
	case len(data) != 0 || c.secure:
		c.reply(id, repErrInvalid, "")
		return nil
	case c.server.cfg.TLS == nil || !c.fixed:
		c.reply(id, repErrPolicy, "TLS is not configured")
		return nil
	case c.r != c.w:
		// What came with the option was sent in the clear: whoever sent it must not be heard as
		// if it had come through TLS.
		return errInjected
	}
	c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
	if err := c.flush(); err != nil {
		return err
	}
	t := tls.Server(c.raw, c.server.cfg.TLS)
	if err := t.HandshakeContext(context.Background()); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.nc, c.secure, c.haggle = t, true, haggle{}
	return nil
}

// reply queues one option reply whose payload is a string.
func (c *conn) reply(id, typ uint32, payload string) {
	c.replyHeader(id, typ, len(payload))
	c.out = append(c.out, payload...)
}

// replyHeader queues the header of an option reply and makes room for n bytes of payload, which the
// caller appends to c.out.
func (c *conn) replyHeader(id, typ uint32, n int) {
	c.room(optionReplySize + n)
	h := protocol.NegotiationReplyHeader{
		ReplyMagic: protocol.NEGOTIATION_MAGIC_REPLY, ID: id, Type: typ, Length: uint32(n),
	}
	b := binary.BigEndian.AppendUint64(c.out, h.ReplyMagic)
	b = binary.BigEndian.AppendUint32(b, h.ID)
	b = binary.BigEndian.AppendUint32(b, h.Type)
	c.out = binary.BigEndian.AppendUint32(b, h.Length)
}

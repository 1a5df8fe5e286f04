package nbdsrv

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// fields reads the fields of an option's data. After a field that is not there, bad is set and
// everything reads as zero.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(f.b)) {
		f.b, f.bad = nil, true
		return nil
	}
	p := f.b[:n]
	f.b = f.b[n:]
	return p
}

func (f *fields) uint32() uint32 {
	if p := f.bytes(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (f *fields) uint16() uint16 {
	if p := f.bytes(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

// name reads a length and a string.
func (f *fields) name() string {
	p := f.bytes(f.uint32())
	if len(p) > maxString {
		f.bad = true
		return ""
	}
	return string(p)
}

// exportName is NBD_OPT_EXPORT_NAME, which can only succeed or end the session.
func (c *conn) exportName(name string) (next, error) {
	if c.mode == extended {
		return more, errExportName
	}
	e := c.lookup(name)
	if e == nil {
		return more, errNoExport
	}
	if err := c.choose(e, e.size()); err != nil {
		return more, err
	}
	c.room(offsetSize + 2 + exportNameZeroes)
	c.out = binary.BigEndian.AppendUint64(c.out, c.view.size)
	c.out = binary.BigEndian.AppendUint16(c.out, e.transmissionFlags(c.mode, c.view.metaSelected, c.view.readOnly))
	if c.zeroes {
		c.out = append(c.out, make([]byte, exportNameZeroes)...)
	}
	return transmit, nil
}

// choose settles the view on e. Errors: errNoExport if e has just been removed, errFull.
func (c *conn) choose(e *Export, size uint64) error {
	c.view = view{export: e, size: size, mode: c.mode, metaSelected: c.meta == e, readOnly: c.readOnly(e)}
	return c.server.use(c, e)
}

// listExports is NBD_OPT_LIST.
func (c *conn) listExports(id uint32, data []byte) {
	if len(data) != 0 {
		c.reply(id, repErrInvalid, "")
		return
	}
	for _, e := range c.mayList(c.server.list()) {
		c.replyHeader(id, protocol.NEGOTIATION_TYPE_REPLY_SERVER, 4+len(e.Name)+len(e.Description))
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(e.Name)))
		c.out = append(c.out, e.Name...)
		c.out = append(c.out, e.Description...)
	}
	c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
}

// infoOrGo is NBD_OPT_INFO and NBD_OPT_GO.
func (c *conn) infoOrGo(id uint32, data []byte) next {
	f := fields{b: data}
	name := f.name()
	count := f.uint16()
	wanted := f.bytes(2 * uint32(count))
	if f.bad || len(f.b) != 0 {
		c.reply(id, repErrInvalid, "")
		return more
	}
	e := c.lookup(name)
	if e == nil {
		c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, "")
		return more
	}
	size := e.size()
	if id == protocol.NEGOTIATION_ID_OPTION_INFO {
		c.info, c.infoSize = e, size
	} else {
		if c.info == e {
			size = c.infoSize
		}
		switch c.choose(e, size) {
		case errNoExport:
			c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, "")
			return more
		case errFull:
			c.reply(id, repErrPolicy, errFull.Error())
			return more
		}
	}
	c.replyInfo(id, e, size, wanted)
	c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
	if id == protocol.NEGOTIATION_ID_OPTION_INFO {
		return more
	}
	return transmit
}

// replyInfo queues NBD_INFO_EXPORT and the known ones of the information wanted, each once.
func (c *conn) replyInfo(id uint32, e *Export, size uint64, wanted []byte) {
	const info = protocol.NEGOTIATION_TYPE_REPLY_INFO
	c.replyHeader(id, info, 12)
	c.out = binary.BigEndian.AppendUint16(c.out, protocol.NEGOTIATION_TYPE_INFO_EXPORT)
	c.out = binary.BigEndian.AppendUint64(c.out, size)
	c.out = binary.BigEndian.AppendUint16(c.out, e.transmissionFlags(c.mode, c.meta == e, c.readOnly(e)))
	var sent uint32
	for ; len(wanted) >= 2; wanted = wanted[2:] {
		typ := binary.BigEndian.Uint16(wanted)
		if typ > protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE || sent&(1<<typ) != 0 {
			continue
		}
		sent |= 1 << typ
		switch typ {
		case protocol.NEGOTIATION_TYPE_INFO_NAME:
			c.replyHeader(id, info, 2+len(e.Name))
			c.out = binary.BigEndian.AppendUint16(c.out, typ)
			c.out = append(c.out, e.Name...)
		case protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION:
			c.replyHeader(id, info, 2+len(e.Description))
			c.out = binary.BigEndian.AppendUint16(c.out, typ)
			c.out = append(c.out, e.Description...)
		case protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
			c.replyHeader(id, info, 14)
			c.out = binary.BigEndian.AppendUint16(c.out, typ)
			c.out = binary.BigEndian.AppendUint32(c.out, e.MinBlock)
			c.out = binary.BigEndian.AppendUint32(c.out, e.PreferredBlock)
			c.out = binary.BigEndian.AppendUint32(c.out, e.MaxPayload)
		}
	}
}

// replyHeaders is NBD_OPT_STRUCTURED_REPLY and NBD_OPT_EXTENDED_HEADERS. Asking again changes
// nothing, and there is no way down from extended headers.
func (c *conn) replyHeaders(id uint32, data []byte) {
	switch {
	case len(data) != 0:
		c.reply(id, repErrInvalid, "")
		return
	case id == optExtendedHeaders:
		c.mode = extended
	case c.mode == extended:
		c.reply(id, repErrExtHeaderReqd, "")
		return
	default:
		c.mode = structured
	}
	c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
}

// metaContext is NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. There is one context.
func (c *conn) metaContext(id uint32, data []byte) {
	set := id == optSetMetaContext
	if set {
		c.meta = nil // also when this one fails
	}
	f := fields{b: data}
	name := f.name()
	count := f.uint32()
	found := !set && count == 0
	for i := uint32(0); i < count && !f.bad; i++ {
		query := f.name()
		found = found || query == metaAllocation || (!set && query == metaBaseNamespace)
	}
	if f.bad || len(f.b) != 0 || (set && c.mode == simple) {
		c.reply(id, repErrInvalid, "")
		return
	}
	e := c.lookup(name)
	if e == nil {
		c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN, "")
		return
	}
	if found {
		var contextID uint32 // reserved in a list
		if set {
			contextID, c.meta = metaAllocationID, e
		}
		c.replyHeader(id, repMetaContext, 4+len(metaAllocation))
		c.out = binary.BigEndian.AppendUint32(c.out, contextID)
		c.out = append(c.out, metaAllocation...)
	}
	c.reply(id, protocol.NEGOTIATION_TYPE_REPLY_ACK, "")
}

package lab

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// The log of dm-log-writes, all integers little-endian (the kernel's
// admin-guide/device-mapper/log-writes.rst and the target's source):
//
//	sector 0        magic u64, version u64, entries u64, sector size u32
//	each entry      sector u64, sectors u64, flags u64, data length u64, in one sector;
//	                a mark's text follows in that sector, a write's data in the next ones
//
// A write stands in the log when a flush that was sent after its end has
// ended, so between two flushes are the writes that only the second made
// durable, in the order in which they ended.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1
	logSector  = 512

	logFlush   = 1 << 0
	logFUA     = 1 << 1
	logDiscard = 1 << 2
	logMark    = 1 << 3
)

// logEntry is one request, or a mark.
type logEntry struct {
	Off, Len int64
	Flags    uint64
	Mark     string
	data     int64 // place of the data in the log
}

// logFile is a log that is complete.
type logFile struct {
	f       *os.File
	Entries []logEntry
}

// openLog reads all but the data.
func openLog(path string) (*logFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &logFile{f: f}
	var b [logSector]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return nil, err
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	if u64(0) != logMagic || u64(8) != logVersion || binary.LittleEndian.Uint32(b[24:]) != logSector {
		return nil, fmt.Errorf("%s: not a log of dm-log-writes with sectors of %d bytes", path, logSector)
	}
	at := int64(logSector)
	for n := u64(16); n > 0; n-- {
		if _, err := f.ReadAt(b[:], at); err != nil {
			return nil, fmt.Errorf("%s: entry %d: %w", path, len(l.Entries), err)
		}
		at += logSector
		e := logEntry{Off: int64(u64(0)) * logSector, Len: int64(u64(8)) * logSector, Flags: u64(16), data: at}
		switch {
		case e.Flags&logMark != 0:
			e.Mark = string(b[32 : 32+min(u64(24), logSector-32)])
		case e.Flags&logDiscard == 0:
			at += e.Len
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// Data reads what an entry wrote: zeroes for a discard.
func (l *logFile) Data(e logEntry) ([]byte, error) {
	b := make([]byte, e.Len)
	if e.Flags&logDiscard != 0 {
		return b, nil
	}
	_, err := io.ReadFull(io.NewSectionReader(l.f, e.data, e.Len), b)
	return b, err
}

func (l *logFile) Close() error { return l.f.Close() }

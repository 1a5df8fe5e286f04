package recovery

import (
	"errors"
	"io"

	"cawrm/aodi/disk"
)

// DumpOptions chooses what is dumped beyond super chunk, checkpoints, catalog and segment table.
type DumpOptions struct {
	Segment int   // the batches of this segment; -1: none
	LBA     int64 // where this logical chunk is; -1: none
	Verbose bool  // the entries of batches, and each segment in a line of its own
}

// DumpFile is Dump on a file or block device. It does not mind that somebody has it open, and says so.
func DumpFile(path string, w io.Writer, o DumpOptions) error { return errors.New("not built yet") }

// Dump writes what a container holds, for people. Errors: what Newest refuses, the disk's, w's.
func Dump(d disk.Disk, w io.Writer, o DumpOptions) error { return errors.New("not built yet") }

package recovery

import (
	"errors"

	"cawrm/aodi/disk"
)

// CheckOptions says how deep a check goes and who hears of it.
type CheckOptions struct {
	Quick    bool                                  // leave out reading the data of mapped chunks
	MaxLines int                                   // lines printed for each broken rule; 0: 10
	Progress func(stage string, done, total int64) // called now and then from Check's goroutine; may be nil
}

// CheckFile is Check on a file or block device, which nobody may have open for writing meanwhile.
// Errors: disk.ErrInUse, what Newest refuses, the disk's.
func CheckFile(path string, o CheckOptions) (*Report, error) {
	return nil, errors.New("not built yet")
}

// Check compares a closed container with every rule of the package doc. It only reads. An error means that
// the check could not be made; what it found is in the report.
func Check(d disk.Disk, o CheckOptions) (*Report, error) {
	return nil, errors.New("not built yet")
}

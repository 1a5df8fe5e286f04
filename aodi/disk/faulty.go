package disk

import "errors"

// Op names an operation for a Faulty's rule.
type Op string

// The operations that can be made to fail.
const (
	OpRead    Op = "read"
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpReserve Op = "reserve"
	OpGrow    Op = "grow"
	OpPunch   Op = "punch"
)

// Faulty wraps a disk and lets a rule fail its operations, or make them slow by taking its time. Rule is called before
// an operation, After when it has succeeded, both from any goroutine.
type Faulty struct {
	Disk
	Rule  func(op Op, off int64, n int) error
	After func(op Op, off int64, n int)
}

// ShortRead is what a rule returns to let a read end early: N bytes arrive, the rest of the buffer stays as it was.
type ShortRead struct {
	N   int
	Err error
}

func (s *ShortRead) Error() string { return s.Err.Error() }
func (s *ShortRead) Unwrap() error { return s.Err }

func (f *Faulty) check(op Op, off int64, n int) error {
	if f.Rule == nil {
		return nil
	}
	return f.Rule(op, off, n)
}

// done passes an operation's result on, and tells After that it succeeded.
func (f *Faulty) done(op Op, off int64, n int, err error) error {
	if err == nil && f.After != nil {
		f.After(op, off, n)
	}
	return err
}

// ReadAt reads unless the rule says otherwise.
func (f *Faulty) ReadAt(p []byte, off int64) error {
	if err := f.check(OpRead, off, len(p)); err != nil {
		var short *ShortRead
		if errors.As(err, &short) {
			_ = f.Disk.ReadAt(p[:min(short.N, len(p))], off) // it fails anyway
		}
		return err
	}
	return f.done(OpRead, off, len(p), f.Disk.ReadAt(p, off))
}

// TryReadAt never has the bytes at hand, so that each read meets the rule in ReadAt.
func (f *Faulty) TryReadAt([]byte, int64) error { return ErrWouldBlock }

// WriteAt writes unless the rule says otherwise.
func (f *Faulty) WriteAt(p []byte, off int64) error {
	if err := f.check(OpWrite, off, len(p)); err != nil {
		return err
	}
	return f.done(OpWrite, off, len(p), f.Disk.WriteAt(p, off))
}

// WriteCached writes unless the rule says otherwise.
func (f *Faulty) WriteCached(p []byte, off int64) error {
	if err := f.check(OpWrite, off, len(p)); err != nil {
		return err
	}
	return f.done(OpWrite, off, len(p), f.Disk.WriteCached(p, off))
}

// Sync syncs unless the rule says otherwise.
func (f *Faulty) Sync() error {
	if err := f.check(OpSync, 0, 0); err != nil {
		return err
	}
	return f.done(OpSync, 0, 0, f.Disk.Sync())
}

// Reserve reserves unless the rule says otherwise.
func (f *Faulty) Reserve(off, n int64) error {
	if err := f.check(OpReserve, off, int(n)); err != nil {
		return err
	}
	return f.done(OpReserve, off, int(n), f.Disk.Reserve(off, n))
}

// Zero writes unless the rule, which sees it as a write, says otherwise.
func (f *Faulty) Zero(off, n int64) error {
	if err := f.check(OpWrite, off, int(n)); err != nil {
		return err
	}
	return f.done(OpWrite, off, int(n), f.Disk.Zero(off, n))
}

// Grow grows unless the rule says otherwise.
func (f *Faulty) Grow(n int64) error {
	if err := f.check(OpGrow, n, 0); err != nil {
		return err
	}
	return f.done(OpGrow, n, 0, f.Disk.Grow(n))
}

// Punch punches unless the rule says otherwise.
func (f *Faulty) Punch(off, n int64) error {
	if err := f.check(OpPunch, off, int(n)); err != nil {
		return err
	}
	return f.done(OpPunch, off, int(n), f.Disk.Punch(off, n))
}

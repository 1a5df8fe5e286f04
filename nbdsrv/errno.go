package nbdsrv

import (
	"errors"
	"syscall"
)

// wireError maps what a Device returned to an error value of the protocol. It is the only place
// where the two meet; nil is 0.
func wireError(err error) uint32 {
	if err == nil {
		return 0
	}
	var no syscall.Errno
	if !errors.As(err, &no) {
		return errIO
	}
	switch no {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return errPerm
	case syscall.ENOMEM:
		return errNoMem
	case syscall.EINVAL:
		return errInval
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return errNoSpace
	case syscall.EOVERFLOW:
		return errOverflow
	case syscall.ENOTSUP:
		return errNotSup
	case syscall.ESHUTDOWN:
		return errShutdown
	}
	return errIO
}

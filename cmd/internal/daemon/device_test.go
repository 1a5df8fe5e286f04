package daemon

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"cawrm/aodi"
	"cawrm/nbdsrv"
)

// TestWouldBlock: the NBD server compares with its own error, without unwrapping.
func TestWouldBlock(t *testing.T) {
	other := errors.New("other")
	for in, want := range map[error]error{nil: nil, aodi.ErrWouldBlock: nbdsrv.ErrWouldBlock, other: other} {
		if got := translate(in); got != want {
			t.Errorf("%v becomes %v, want %v", in, got, want)
		}
	}
}

// TestExport: a primary is written and read through what NBD gets; a mirror is read-only and has no size yet.
func TestExport(t *testing.T) {
	primary := open(t, aodi.CreateOptions{Size: 1 << 20})
	e := export("disk", primary)
	if e.ReadOnly || e.Device.Size() != 1<<20 || !e.MultiConn {
		t.Errorf("%+v", e)
	}
	p, q := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
	if err := e.Device.WriteAt(p, 8192, true); err != nil {
		t.Fatal(err)
	}
	if err := e.Device.ReadAt(q, 8192); err != nil || !bytes.Equal(p, q) {
		t.Error(err)
	}
	if err := e.Device.(nbdsrv.Nonblocking).TryReadAt(q, 8192); err != nil && err != nbdsrv.ErrWouldBlock {
		t.Error(err)
	}
	mirror := open(t, aodi.CreateOptions{Mirror: true})
	e = export("disk", mirror)
	if !e.ReadOnly || e.Device.Size() != 0 || e.Device.Flush() != nil {
		t.Errorf("%+v", e)
	}
}

func open(t *testing.T, o aodi.CreateOptions) *aodi.Volume {
	t.Helper()
	path := filepath.Join(t.TempDir(), "container")
	if err := aodi.Create(path, o); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

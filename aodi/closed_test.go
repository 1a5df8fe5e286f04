package aodi_test

import (
	"testing"

	"cawrm/aodi"
)

// TestClosedInOrder ensures that an opened volume tells whether writes that it accepted before can be gone: nobody may
// go on as if they were there.
func TestClosedInOrder(t *testing.T) {
	d := newDisk(t, 64<<20)
	create(t, d, 8<<20, 64)
	v := open(t, d, aodi.Options{})
	if !v.Status().ClosedInOrder {
		t.Error("a new container has lost nothing")
	}
	if err := v.WriteAt(make([]byte, chunk), 0, true); err != nil {
		t.Fatal(err)
	}
	crashed := d.Crash(newRand(1))
	t.Cleanup(crashed.Free)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, d, aodi.Options{})
	if !v.Status().ClosedInOrder {
		t.Error("closed in order, and not told")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, crashed, aodi.Options{})
	if v.Status().ClosedInOrder {
		t.Error("a crash passes for a close")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

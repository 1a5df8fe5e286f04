package aodi_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// A rescue of a file reads it and nothing else, keeps writers out, and shows a volume of which a map page is damaged.
func TestRescueOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "container")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(aodi.Create(path, aodi.CreateOptions{Size: 8 << 20}))
	v, err := aodi.Open(path, aodi.Options{})
	must(err)
	data := bytes.Repeat([]byte("content of a chunk  "), 4096)
	must(v.WriteAt(data, 0, false))
	if _, _, err := aodi.Rescue(path, aodi.Options{}); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("a rescue of a container that is served: %v", err)
	}
	must(v.Close())

	d, err := disk.OpenFile(path, false)
	must(err)
	c, err := recovery.Newest(d)
	must(err)
	must(d.WriteCached(bytes.Repeat([]byte{1}, 4096), int64(c.Meta.MapRoot.Phys())*4096))
	must(d.Close())
	if v, err := aodi.Open(path, aodi.Options{}); err == nil { // it does not look at the map before it is read
		_ = v.Close()
	}
	before, err := os.ReadFile(path)
	must(err)
	v, res, err := aodi.Rescue(path, aodi.Options{})
	must(err)
	if len(res.Found) == 0 || len(res.Lost) > 0 {
		t.Errorf("it says %+v", res)
	}
	got := make([]byte, len(data))
	must(v.ReadAt(got, 0))
	if !bytes.Equal(got, data) {
		t.Error("the content is not what was written")
	}
	if _, err := aodi.Open(path, aodi.Options{}); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("opened for writing beside a rescue: %v", err)
	}
	must(v.Close())
	after, err := os.ReadFile(path)
	must(err)
	if !bytes.Equal(before, after) {
		t.Error("the container was changed")
	}
}

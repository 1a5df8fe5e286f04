package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"cawrm/aodi/disk"
)

// An overlay shows what a disk would hold after the same writes, through reads and through mappings made before and
// after them, and leaves the disk below as it was until Commit.
func TestOverlayShowsChangesAndKeepsThem(t *testing.T) {
	const chunks = 64
	f, err := disk.CreateFile(filepath.Join(t.TempDir(), "base"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	memory := disk.NewMemory(chunks * 4096)
	defer memory.Free()
	for name, base := range map[string]disk.Disk{"file": f, "memory": memory} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			want := make([]byte, chunks*4096)
			for i := range want {
				want[i] = byte(rng.Uint32())
			}
			must(base.Grow(int64(len(want))))
			must(base.WriteCached(want, 0))
			below := bytes.Clone(want)
			o := disk.NewOverlay(base)
			mapped, unmap, err := o.Map(8*4096, 8*4096)
			must(err)
			for range 60 {
				at, n := rng.IntN(chunks-4)*4096, (1+rng.IntN(4))*4096
				if rng.IntN(4) == 0 {
					clear(want[at : at+n])
					must(o.Zero(int64(at), int64(n)))
					continue
				}
				p := bytes.Repeat([]byte{byte(rng.Uint32())}, n)
				copy(want[at:], p)
				must(o.WriteAt(p, int64(at)))
			}
			got := make([]byte, len(want))
			must(o.ReadAt(got, 0))
			if !bytes.Equal(got, want) || !bytes.Equal(mapped, want[8*4096:16*4096]) {
				t.Error("the overlay does not show what was written")
			}
			must(unmap())
			mapped, unmap, err = o.Map(4096, 30*4096)
			must(err)
			if !bytes.Equal(mapped, want[4096:31*4096]) {
				t.Error("a later mapping does not show what was written")
			}
			must(unmap())
			must(base.ReadAt(got, 0))
			if !bytes.Equal(got, below) {
				t.Error("the disk below was changed")
			}
			must(o.Commit(4096))
			must(base.ReadAt(got, 0))
			if !bytes.Equal(got, want) {
				t.Error("Commit leaves something out")
			}
		})
	}
}

// A chunk that cannot be read hides no other, is never taken for data, and is remembered.
func TestOverlayOverAFailingDisk(t *testing.T) {
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	if err := m.WriteCached(bytes.Repeat([]byte{1}, 8*4096), 0); err != nil {
		t.Fatal(err)
	}
	o := disk.NewOverlay(&disk.Faulty{Disk: m, Rule: func(op disk.Op, off int64, n int) error {
		if op == disk.OpRead && off <= 3*4096 && 3*4096 < off+int64(n) {
			return syscall.EIO
		}
		return nil
	}})
	if err := o.Grow(10 * 4096); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10*4096)
	if err := o.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		want := byte(1)
		if i == 3 || i >= 8 {
			want = 0xEE
		}
		if b[i*4096] != want || b[i*4096+4095] != want {
			t.Errorf("chunk %d reads as %#x", i, b[i*4096])
		}
	}
	if bad := o.Bad(); len(bad) != 1 || !errors.Is(bad[3*4096], syscall.EIO) {
		t.Errorf("bad are %v", bad)
	}
	if err := o.ReadAt(b, 4096); err == nil {
		t.Error("a read beyond the end succeeds")
	}
}

// Commit makes what is above the given byte durable before it writes what is below it.
func TestOverlayCommitsMetaChunksLast(t *testing.T) {
	m := disk.NewMemory(1 << 20)
	defer m.Free()
	var order []string
	o := disk.NewOverlay(&disk.Faulty{Disk: m, Rule: func(op disk.Op, off int64, _ int) error {
		switch {
		case op == disk.OpSync:
			order = append(order, "sync")
		case op == disk.OpWrite && off < 4*4096:
			order = append(order, "meta")
		case op == disk.OpWrite:
			order = append(order, "page")
		}
		return nil
	}})
	for _, at := range []int64{1, 9, 2, 8} {
		if err := o.WriteCached(make([]byte, 4096), at*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Commit(4 * 4096); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range order {
		got += s + " "
	}
	if got != "page page sync meta meta sync " {
		t.Errorf("the order is %s", got)
	}
}

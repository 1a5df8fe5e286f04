package gc_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/gc"
	recovery "cawrm/recover"
)

// thin is a file on a file system that has only so many blocks.
type thin struct {
	*disk.Memory
	mu   sync.Mutex
	has  map[int64]bool // blocks
	most int
}

const block = 4096

func (d *thin) take(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var fresh []int64
	for b := off / block; b*block < off+n; b++ {
		if !d.has[b] {
			fresh = append(fresh, b)
		}
	}
	if len(d.has)+len(fresh) > d.most {
		return fmt.Errorf("thin: %d bytes at %d: %w", n, off, syscall.ENOSPC)
	}
	for _, b := range fresh {
		d.has[b] = true
	}
	return nil
}

func (d *thin) WriteAt(p []byte, off int64) error {
	if err := d.take(off, int64(len(p))); err != nil {
		return err
	}
	return d.Memory.WriteAt(p, off)
}

func (d *thin) WriteCached(p []byte, off int64) error {
	if err := d.take(off, int64(len(p))); err != nil {
		return err
	}
	return d.Memory.WriteCached(p, off)
}

func (d *thin) Zero(off, n int64) error {
	if err := d.take(off, n); err != nil {
		return err
	}
	return d.Memory.Zero(off, n)
}

func (d *thin) Reserve(off, n int64) error {
	if err := d.take(off, n); err != nil {
		return err
	}
	return d.Memory.Reserve(off, n)
}

func (d *thin) Punch(off, n int64) error {
	d.mu.Lock()
	for b := off / block; b*block < off+n; b++ {
		delete(d.has, b)
	}
	d.mu.Unlock()
	return d.Memory.Punch(off, n)
}

// TestFullFileSystem ensures that a volume whose file system is full refuses writes with ENOSPC and does not fail, goes on with reads
// and discards, and takes writes again after a discard; and that it can be closed and opened in that state.
func TestFullFileSystem(t *testing.T) {
	m := disk.NewMemory(256 << 20)
	t.Cleanup(m.Free)
	const most = 16 << 20
	d := &thin{Memory: m, has: map[int64]bool{}, most: most / block}
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 4 * most, SegmentChunks: 32}); err != nil {
		t.Fatal(err)
	}
	fullFileSystem(t, most, func() (*aodi.Volume, error) { return aodi.OpenOn(d, aodi.Options{}) }, func() {})
	r, err := recovery.Check(d, recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Errorf("check: %v", v)
	}
}

// TestFullFileSystemMounted ensures the same on ext4, xfs and tmpfs, where somebody else takes what the volume has left.
func TestFullFileSystemMounted(t *testing.T) {
	const most = 64 << 20
	dir := t.TempDir()
	image := func(bytes int64) string {
		path := filepath.Join(dir, fmt.Sprint(bytes))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, bytes)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("ext4", func(t *testing.T) {
		image := image(most)
		mounted(t, most, [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image}})
	})
	t.Run("xfs", func(t *testing.T) {
		image := image(320 << 20) // there are none much smaller
		mounted(t, most, [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image}})
	})
	t.Run("tmpfs", func(t *testing.T) {
		mounted(t, most, [][]string{{"mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", most), "none"}})
	})
}

func mounted(t *testing.T, most int64, commands [][]string) {
	at := t.TempDir()
	commands[len(commands)-1] = append(commands[len(commands)-1], at)
	for _, c := range commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs root, %s and a loop device: %v: %v: %s", commands[0][0], c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	leave(t, at, most)
	path := filepath.Join(at, "disk.img")
	if err := aodi.Create(path, aodi.CreateOptions{Size: 4 * most, SegmentChunks: 256}); err != nil {
		t.Fatal(err)
	}
	others := 0
	fullFileSystem(t, most, func() (*aodi.Volume, error) { return aodi.Open(path, aodi.Options{}) }, func() {
		others++
		f, err := os.Create(filepath.Join(at, fmt.Sprint("other", others)))
		if errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for b := make([]byte, block); err == nil; {
			_, err = f.Write(b)
		}
		if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	})
	r, err := recovery.CheckFile(path, recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Errorf("check: %v", v)
	}
}

// leave takes what a file system has more than so much.
func leave(t *testing.T, at string, most int64) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(at, &s); err != nil {
		t.Fatal(err)
	}
	more := int64(s.Bavail)*s.Bsize - most
	if more <= 0 {
		return
	}
	f, err := os.Create(filepath.Join(at, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, more); err != nil {
		t.Fatal(err)
	}
}

// fullFileSystem fills a volume until the file system is full, three times.
func fullFileSystem(t *testing.T, most int64, open func() (*aodi.Volume, error), takeTheRest func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := open()
	must(err)
	c := gc.Start(v, gc.Options{})
	defer func() {
		if v == nil { // it could not be opened again
			return
		}
		c.Close()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	chunks := v.Size() / chunk
	for round := range 3 {
		n := int64(0)
		for ; n < chunks; n++ {
			if err := v.WriteAt(stamped(uint64(n+1)), n*chunk, false); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("round %d: %d bytes were taken, of %d", round, n*chunk, most)
		if n == chunks || round == 0 && n*chunk < most*6/10 {
			t.Errorf("round %d: %d bytes were taken, of %d", round, n*chunk, most)
		}
		takeTheRest()
		must(v.Flush())
		b := make([]byte, chunk)
		for at := range n {
			if err := v.ReadAt(b, at*chunk); err != nil || !bytes.Equal(b, stamped(uint64(at+1))) {
				t.Fatalf("full, chunk %d: %v", at, err)
			}
		}
		if round == 1 { // the daemon is started again on a full file system
			c.Close()
			must(v.Close())
			v, err = open()
			must(err)
			c = gc.Start(v, gc.Options{})
		}
		for at := int64(0); at < n; at += 2 { // half of each segment: only cleaning brings its space back
			if err := v.Trim(at*chunk, chunk, at%64 == 0); err != nil {
				t.Fatalf("round %d: discard of chunk %d: %v", round, at, err)
			}
		}
		for at := range n / 8 {
			if err := v.WriteAt(stamped(7), at*2*chunk, false); err != nil {
				t.Fatalf("round %d: write %d after the discards: %v; %+v", round, at, err, v.Space())
			}
		}
		must(v.Trim(0, chunks*chunk, true))
	}
}

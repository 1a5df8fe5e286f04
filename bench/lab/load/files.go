package load

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// slots is the number of names of each worker: few, so that most files replace
// another and the file system reuses space.
const slots = 24

// Files replaces files under Root with several workers until Stop.
type Files struct {
	Root    string
	Workers int
	Seed    uint64
	Count   int // files of each worker; 0: until stop
	// Told is called by many goroutines with a file that is durable from now on.
	Told func(name string, version uint64) error
}

// Content is the only content that a version of a file can have: a header of
// one line and noise, of a size that follows from both.
func Content(name string, version uint64) []byte {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", name, version)
	rng := rand.New(rand.NewPCG(h.Sum64(), version))
	size := 1 + rng.IntN(8<<10)
	switch rng.IntN(10) {
	case 0:
		size = 1 + rng.IntN(256<<10)
	case 1, 2, 3:
		size = 1 + rng.IntN(48<<10)
	}
	b := fmt.Appendf(nil, "%s %d %d\n", name, version, size)
	for size = max(size, len(b)); len(b) < size; {
		b = append(b, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()))
	}
	return b[:size]
}

// ReadVersion tells which version of the file this content is, whole.
func ReadVersion(name string, content []byte) (uint64, error) {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	var found string
	var version uint64
	var size int
	if _, err := fmt.Sscanf(string(line[:min(len(line), 200)]), "%s %d %d", &found, &version, &size); err != nil || found != name {
		return 0, fmt.Errorf("%s: %d bytes that no version begins with", name, len(content))
	}
	want := Content(name, version)
	if bytes.Equal(content, want) {
		return version, nil
	}
	n := 0
	for n < min(len(content), len(want)) && content[n] == want[n] {
		n++
	}
	return 0, fmt.Errorf("%s: version %d has %d bytes and differs from byte %d on; it was written with %d bytes", name, version, len(content), n, len(want))
}

// CheckFiles reads each file that was told and returns how many there are. An
// error names the files that are lost, old or damaged.
func CheckFiles(root string, told map[string]uint64) (int, error) {
	var wrong []error
	for name, least := range told {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			var version uint64
			if version, err = ReadVersion(name, b); err == nil && version < least {
				err = fmt.Errorf("%s: version %d, but %d was durable", name, version, least)
			}
		}
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	return len(told), errors.Join(wrong...)
}

// Run writes until stop is closed, each worker has written Count files, or the
// first error. It goes on from the versions that it finds.
func (f *Files) Run(stop <-chan struct{}) error {
	errs := make([]error, f.Workers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f.work(i, stop) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *Files) work(worker int, stop <-chan struct{}) error {
	dir := fmt.Sprintf("w%d", worker)
	if err := os.MkdirAll(filepath.Join(f.Root, dir), 0o700); err != nil {
		return err
	}
	if err := syncPath(f.Root, unix.Fsync); err != nil {
		return err
	}
	versions, err := f.versions(dir)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(f.Seed, uint64(worker)))
	for n := 0; f.Count == 0 || n < f.Count; {
		select {
		case <-stop:
			return nil
		default:
		}
		// Mostly one file with an fsync of its own, sometimes several that one syncfs makes durable.
		several := 1
		if rng.IntN(4) == 0 {
			several = 2 + rng.IntN(4)
		}
		names := make([]string, several)
		for i, slot := range rng.Perm(slots)[:several] {
			names[i] = fmt.Sprintf("%s/f%d", dir, slot)
			versions[names[i]]++
		}
		if err := f.replace(dir, names, versions); err != nil {
			return err
		}
		for _, name := range names {
			if err := f.Told(name, versions[name]); err != nil {
				return err
			}
		}
		n += several
	}
	return nil
}

// versions reads those that are there.
func (f *Files) versions(dir string) (map[string]uint64, error) {
	found := map[string]uint64{}
	for i := range slots {
		name := fmt.Sprintf("%s/f%d", dir, i)
		b, err := os.ReadFile(filepath.Join(f.Root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			found[name], err = ReadVersion(name, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// replace writes versions beside the names, makes them durable, and moves them there. Durable first: a file
// system may show an empty file after a crash where a name was given to one that was not.
func (f *Files) replace(dir string, names []string, versions map[string]uint64) error {
	for _, name := range names {
		if err := f.write(name, versions[name], len(names) == 1); err != nil {
			return err
		}
	}
	if len(names) > 1 {
		if err := syncPath(f.Root, unix.Syncfs); err != nil {
			return err
		}
	}
	for _, name := range names {
		path := filepath.Join(f.Root, name)
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return syncPath(filepath.Join(f.Root, dir), unix.Fsync)
}

func (f *Files) write(name string, version uint64, sync bool) error {
	file, err := os.Create(filepath.Join(f.Root, name) + ".new")
	if err != nil {
		return err
	}
	if _, err = file.Write(Content(name, version)); err == nil && sync {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncPath(path string, how func(fd int) error) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := how(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "sync", Path: path, Err: err}
	}
	return nil
}

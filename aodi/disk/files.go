package disk

import "os"

// Files is where containers lie that a volume makes itself, by path: the file system, or what a test has in its place.
type Files interface {
	Create(path string) (Disk, error) // CreateFile
	Open(path string) (Disk, error)   // OpenFile, for reading and writing
	Remove(path string) error
}

// FileSystem is the machine's.
type FileSystem struct{}

// Create is CreateFile.
func (FileSystem) Create(path string) (Disk, error) {
	f, err := CreateFile(path)
	if err != nil {
		return nil, err // not a nil *File that is no nil Disk
	}
	return f, nil
}

// Open is OpenFile.
func (FileSystem) Open(path string) (Disk, error) {
	f, err := OpenFile(path, false)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Remove is os.Remove.
func (FileSystem) Remove(path string) error { return os.Remove(path) }

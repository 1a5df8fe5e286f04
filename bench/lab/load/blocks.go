package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"cawrm/bench/internal/oracle"
)

// BlockSize is the unit of Blocks.
const BlockSize = oracle.BlockSize

const maxStep = 16 // blocks in one step

// Step is one change of Blocks. Its blocks are numbered one by one: a cut may
// fall between them.
type Step struct {
	Seq   uint64 // number of its first block's change, from 1
	Block int64
	Count int64
	Trim  bool
	Flush bool // after it
}

// Steps returns the steps of a seed, one a call.
func Steps(seed uint64, blocks int64) func() Step {
	rng := rand.New(rand.NewPCG(seed, 0xb10c))
	next := uint64(1)
	return func() Step {
		s := Step{Seq: next, Count: 1 + rng.Int64N(3), Flush: rng.IntN(8) == 0, Trim: rng.IntN(12) == 0}
		if rng.IntN(6) == 0 {
			s.Count = 1 + rng.Int64N(maxStep)
		}
		s.Block = rng.Int64N(blocks - s.Count + 1)
		next += uint64(s.Count)
		return s
	}
}

// Blocks writes steps to a block device, from byte Offset on, past its cache.
type Blocks struct {
	Device string
	Offset int64
	Blocks int64
	Seed   uint64
	Steps  int
	Told   func(seq uint64) error // all changes up to seq are durable
}

// Run makes the steps one after the other.
func (l *Blocks) Run() error {
	f, err := os.OpenFile(l.Device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf, err := unix.Mmap(-1, 0, maxStep*BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	next := Steps(l.Seed, l.Blocks)
	for range l.Steps {
		s := next()
		if err := l.step(f, s, buf); err != nil {
			return fmt.Errorf("%s: change %d: %w", l.Device, s.Seq, err)
		}
		if !s.Flush {
			continue
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := l.Told(s.Seq + uint64(s.Count) - 1); err != nil {
			return err
		}
	}
	return nil
}

func (l *Blocks) step(f *os.File, s Step, buf []byte) error {
	at := l.Offset + s.Block*BlockSize
	if s.Trim {
		span := [2]uint64{uint64(at), uint64(s.Count * BlockSize)}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
		if errno != 0 {
			return errno
		}
		return nil
	}
	b := buf[:s.Count*BlockSize]
	for i := range s.Count {
		oracle.Stamp(b[i*BlockSize:(i+1)*BlockSize], s.Seq+uint64(i), s.Block+i)
	}
	_, err := f.WriteAt(b, at)
	return err
}

// CheckBlocks reads the blocks of an image and returns the number of changes
// that it shows. It must show the first n of them, all and no other, for an n
// that is at least durable.
func CheckBlocks(read func(p []byte, off int64) error, seed uint64, blocks int64, durable uint64) (uint64, error) {
	shown := make([]uint64, blocks)
	buf := make([]byte, 64*BlockSize)
	newest := uint64(0)
	for b := int64(0); b < blocks; b++ {
		p := buf[b%64*BlockSize:][:BlockSize]
		if b%64 == 0 {
			if err := read(buf[:min(64, blocks-b)*BlockSize], b*BlockSize); err != nil {
				return 0, err
			}
		}
		seq, err := oracle.ReadStamp(p, b)
		if err != nil {
			return 0, err
		}
		shown[b] = seq
		newest = max(newest, seq)
	}
	return follow(shown, seed, durable, newest)
}

// reach is how far beyond the newest change that is shown, or the last durable
// one, an image may be: trims leave no number, and hide the writes before them.
const reach = 1000

// follow makes the changes anew until what they leave is what is shown.
func follow(shown []uint64, seed uint64, durable, newest uint64) (uint64, error) {
	least := max(durable, newest)
	model := make([]uint64, len(shown))
	var atLeast []uint64
	wrong := 0 // blocks that differ
	for _, s := range shown {
		if s != 0 {
			wrong++
		}
	}
	n := uint64(0)
	next := changes(seed, int64(len(shown)))
	for ; n < least+reach; n++ {
		if n == least {
			atLeast = append(atLeast, model...)
		}
		if n >= least && wrong == 0 {
			return n, nil
		}
		block, to := next()
		if model[block] == shown[block] && to != shown[block] {
			wrong++
		} else if model[block] != shown[block] && to == shown[block] {
			wrong--
		}
		model[block] = to
	}
	return 0, mismatch(shown, atLeast, durable, newest)
}

// changes returns the blocks of the steps one by one, and what each holds then.
func changes(seed uint64, blocks int64) func() (block int64, to uint64) {
	steps := Steps(seed, blocks)
	s, i := steps(), int64(0)
	return func() (int64, uint64) {
		if i == s.Count {
			s, i = steps(), 0
		}
		block, to := s.Block+i, s.Seq+uint64(i)
		if s.Trim {
			to = 0
		}
		i++
		return block, to
	}
}

func mismatch(shown, model []uint64, durable, newest uint64) error {
	var wrong []error
	for b, s := range shown {
		if s != model[b] && len(wrong) < 8 {
			wrong = append(wrong, fmt.Errorf("block %d shows change %d instead of %d", b, s, model[b]))
		}
	}
	return fmt.Errorf("no first n changes leave this image (change %d is the newest there, all up to %d were flushed):\n%w",
		newest, durable, errors.Join(wrong...))
}

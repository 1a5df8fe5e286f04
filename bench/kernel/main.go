// Command kernel repeats the experiment of the Zumastor paper, section 3.1: how small the difference between two states of a file
// system becomes, when a kernel's source tree is unpacked onto it, and when that becomes a later release.
//
// images.sh makes the three states. This program packs the chunks that differ into frames of 1 MiB, in the order of logical chunks, as a
// jump epoch ships them, with the code that ships them, and counts bytes and processor time, at each level. "raw" is the chunks that
// differ, which is what the paper compares with. "0 to 1" and "0 to 2" are for a mirror that holds nothing but an empty file system.
// "1 to 2" is for one that got "0 to 1" before: what of that the source's volume still holds is referred to, and, "snapshot at 1", what a snapshot holds.
//
// No network is used, and no disk but to read the states, so a busy machine makes it slow, but changes no figure but, by its caches, the processor time.
//
// Usage: go run ./bench/kernel [--level better] DIR      with 0.img, 1.img and 2.img in it
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

func main() {
	only := flag.String("level", "", "of this level only")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: kernel [--level fast|default|better|best] DIR")
		os.Exit(2)
	}
	for l := wire.LevelFast; l <= wire.LevelBest; l++ {
		if *only != "" && *only != l.String() {
			continue
		}
		if err := measure(flag.Arg(0), l); err != nil {
			fmt.Fprintln(os.Stderr, "kernel:", err)
			os.Exit(1)
		}
	}
}

// measure packs all steps at one level.
func measure(dir string, level wire.Level) error {
	for _, snapshot := range []bool{false, true} {
		c := &contestant{level: level, dir: dir, snapshot: snapshot}
		c.refer()
		if err := c.step(0, 1, "0 to 1", !snapshot); err != nil {
			return err
		}
		c.acked = 2
		c.reconnect()
		name := "1 to 2"
		if snapshot {
			name += ", snapshot at 1"
		}
		if err := c.step(1, 2, name, true); err != nil {
			return err
		}
	}
	c := &contestant{level: level, dir: dir}
	c.refer()
	return c.step(0, 2, "0 to 2", true)
}

// result is one line of the output.
type result struct {
	Step       string  `json:"step"`
	Level      string  `json:"level"`
	RawBytes   int64   `json:"raw_bytes"`
	SentBytes  int64   `json:"sent_bytes"`
	Ratio      float64 `json:"ratio"`
	CPUPerMiB  float64 `json:"cpu_ms_per_mib"` // of raw
	References int     `json:"references"`     // chunks that frames referred to
}

// contestant packs at one level.
type contestant struct {
	dir      string
	level    wire.Level
	snapshot bool // the source has one of the state before

	packer wire.Packer
	known  wire.Known
	frame  wire.Frame
	acked  format.Position
	to     format.Position // where the step ends
	holds  []*os.File      // what the source can read

	raw, sent int64
	refs      int
	cpu       time.Duration
}

// refer lets it refer to what the mirror has, as a session does.
func (c *contestant) refer() {
	c.packer.Refer(&wire.References{Known: &c.known, Acked: func() format.Position { return c.acked }, Read: c.read})
}

// reconnect begins a session.
func (c *contestant) reconnect() {
	c.packer.Release()
	c.packer = wire.Packer{}
	c.refer()
}

func (c *contestant) read(lba uint64, crc uint32, chunk []byte) bool {
	for _, f := range c.holds {
		if _, err := f.ReadAt(chunk, int64(lba)*format.ChunkSize); err == nil && format.Sum(chunk) == crc {
			return true
		}
	}
	return false
}

const frameChunks = 256

// step packs what differs between two states.
func (c *contestant) step(from, to int, name string, tell bool) error {
	image := func(i int) string { return filepath.Join(c.dir, fmt.Sprintf("%d.img", i)) }
	defer c.close()
	for _, i := range []int{to, from} {
		f, err := os.Open(image(i))
		if err != nil {
			return err
		}
		if c.holds = append(c.holds, f); !c.snapshot {
			break
		}
	}
	c.raw, c.sent, c.refs, c.cpu = 0, 0, 0, 0
	rec := wire.Records{First: format.Position(from + 1), End: format.Position(to + 1), Jump: true}
	err := compare(image(from), image(to), func(off int64, chunk []byte) error {
		rec.Entries = append(rec.Entries, format.Entry{Birth: rec.First, LBA: uint64(off / format.ChunkSize), Kind: format.KindData, Count: 1, CRC: format.Sum(chunk)})
		rec.Data = append(rec.Data, chunk...)
		if len(rec.Entries) == frameChunks {
			return c.pack(&rec)
		}
		return nil
	})
	if err == nil && len(rec.Entries) > 0 {
		err = c.pack(&rec)
	}
	if err != nil || !tell {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result{Step: name, Level: c.level.String(), RawBytes: c.raw, SentBytes: c.sent, References: c.refs,
		Ratio: float64(c.raw) / float64(c.sent), CPUPerMiB: c.cpu.Seconds() * 1000 / (float64(c.raw) / (1 << 20))})
}

func (c *contestant) close() {
	for _, f := range c.holds {
		f.Close()
	}
	c.holds = nil
}

func (c *contestant) pack(rec *wire.Records) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadTime()
	if err != nil {
		return err
	}
	if err := c.packer.Pack(&c.frame, rec, c.level); err != nil {
		return err
	}
	after, err := threadTime()
	c.cpu, c.raw, c.refs = c.cpu+after-before, c.raw+int64(len(rec.Data)), c.refs+c.frame.References
	c.sent += c.frame.Size()
	rec.Entries, rec.Data = rec.Entries[:0], rec.Data[:0]
	return err
}

func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

// compare calls fn for each chunk of after that is another in before; a before of "" is zeroes.
func compare(before, after string, fn func(off int64, chunk []byte) error) error {
	b, err := os.Open(after)
	if err != nil {
		return err
	}
	defer b.Close()
	old, err := os.Open(os.DevNull)
	if before != "" {
		old, err = os.Open(before)
	}
	if err != nil {
		return err
	}
	defer old.Close()
	was, is := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(is)) {
		if n, err := io.ReadFull(b, is); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %d bytes at %d: %w", after, n, off, err)
		}
		clear(was)
		if before != "" {
			if _, err := io.ReadFull(old, was); err != nil {
				return fmt.Errorf("%s at %d: %w", before, off, err)
			}
		}
		for at := 0; at < len(is); at += format.ChunkSize {
			if chunk := is[at : at+format.ChunkSize]; !bytes.Equal(chunk, was[at:at+format.ChunkSize]) {
				if err := fn(off+int64(at), chunk); err != nil {
					return err
				}
			}
		}
	}
}

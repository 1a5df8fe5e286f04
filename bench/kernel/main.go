// Command kernel repeats the experiment of the Zumastor paper, section 3.1: how small the difference between two states of a file
// system becomes, when a kernel's source tree is unpacked onto it, and when that becomes a later release.
//
// images.sh makes the three states. This program packs the chunks that differ into frames of 1 MiB, in the order of logical chunks, as a
// jump epoch ships them, at each level, and counts bytes and processor time. "raw" is the chunks that differ, which is what
// the paper compares with. No disk is written and no network used, so a busy machine makes it slow, but changes no figure but, by its caches, the
// processor time. With --sample n only each n-th frame is packed.
//
// Usage: go run ./bench/kernel [--sample n] DIR      with 0.img, 1.img and 2.img in it
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
	sample := flag.Int("sample", 1, "pack each n-th frame only")
	flag.Parse()
	if flag.NArg() != 1 || *sample < 1 {
		fmt.Fprintln(os.Stderr, "usage: kernel [--sample n] DIR")
		os.Exit(2)
	}
	for _, step := range [][2]int{{0, 1}, {1, 2}, {0, 2}} {
		if err := measure(flag.Arg(0), step, *sample); err != nil {
			fmt.Fprintln(os.Stderr, "kernel:", err)
			os.Exit(1)
		}
	}
}

// result is one line of the output.
type result struct {
	Step      string  `json:"step"`
	Level     string  `json:"level"`
	Sample    int     `json:"sample"` // each n-th frame was packed
	RawBytes  int64   `json:"raw_bytes"`
	SentBytes int64   `json:"sent_bytes"`
	Ratio     float64 `json:"ratio"`
	CPUPerMiB float64 `json:"cpu_ms_per_mib"` // of raw
}

// contestant packs at one level. Each has a stream of its own.
type contestant struct {
	level  wire.Level
	packer wire.Packer
	frame  wire.Frame
	sent   int64
	cpu    time.Duration
}

const frameChunks = 256

func measure(dir string, step [2]int, sample int) error {
	name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("%d.img", i)) }
	var all []*contestant
	for l := wire.LevelFast; l <= wire.LevelBest; l++ {
		all = append(all, &contestant{level: l})
	}
	var rec wire.Records
	raw, frames := int64(0), 0
	flush := func() error {
		if frames++; frames%sample == 0 {
			raw += int64(len(rec.Data))
			for _, c := range all {
				if err := c.pack(&rec); err != nil {
					return err
				}
			}
		}
		rec.Entries, rec.Data = rec.Entries[:0], rec.Data[:0]
		return nil
	}
	err := compare(name(step[0]), name(step[1]), func(off int64, chunk []byte) error {
		rec.First, rec.End, rec.Jump = 1, 2, true
		rec.Entries = append(rec.Entries, format.Entry{Birth: 1, LBA: uint64(off / format.ChunkSize), Kind: format.KindData, Count: 1, CRC: format.Sum(chunk)})
		rec.Data = append(rec.Data, chunk...)
		if len(rec.Entries) == frameChunks {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(rec.Entries) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	for _, c := range all {
		if err := json.NewEncoder(os.Stdout).Encode(result{Step: fmt.Sprintf("%d to %d", step[0], step[1]), Level: c.level.String(), Sample: sample,
			RawBytes: raw, SentBytes: c.sent, Ratio: float64(raw) / float64(c.sent), CPUPerMiB: c.cpu.Seconds() * 1000 / (float64(raw) / (1 << 20))}); err != nil {
			return err
		}
	}
	return nil
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
	c.cpu += after - before
	c.sent += c.frame.Size()
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

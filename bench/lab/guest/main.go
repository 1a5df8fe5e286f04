// Command guest is what runs in the virtual machine besides cawrm: it writes
// the loads of package load and checks files after a power cut.
//
//	guest files SEED WORKERS COUNT DIR...   replace files until killed, or COUNT a worker
//	guest blocks DEVICE OFFSET BLOCKS SEED STEPS
//	guest compare DEVICE OFFSET BLOCKS SEED LIST  the blocks are those of the steps that were told, and no others
//	guest check DIR LIST                    compare the files with a list of what was told
//
// What is durable is told in lines, "file DIR-BASE/NAME VERSION" or "blocks OFFSET N":
// to a port with TELL=/dev/virtio-ports/NAME, or with TELL=dm:NAME as marks in
// the log of that device, with colons for the spaces.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"cawrm/bench/lab/load"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 5 && args[0] == "files":
		return files(numbers(args[1:4]), args[4:])
	case len(args) == 6 && args[0] == "blocks":
		return blocks(args[1], numbers(args[2:]))
	case len(args) == 6 && args[0] == "compare":
		return compare(args[1], numbers(args[2:5]), args[5])
	case len(args) == 3 && args[0] == "check":
		return check(args[1], args[2])
	}
	return fmt.Errorf("what is %q? see the package doc", args)
}

// numbers parses arguments that the scripts of this directory give.
func numbers(args []string) []int64 {
	var n []int64
	for _, a := range args {
		i, err := strconv.ParseInt(a, 10, 64)
		if err != nil {
			panic(err)
		}
		n = append(n, i)
	}
	return n
}

func files(n []int64, dirs []string) error {
	tell, err := teller()
	if err != nil {
		return err
	}
	errs := make([]error, len(dirs))
	var wg sync.WaitGroup
	for i, dir := range dirs {
		l := &load.Files{Root: dir, Seed: uint64(n[0]), Workers: int(n[1]), Count: int(n[2]),
			Told: func(name string, version uint64) error {
				return tell(fmt.Sprintf("file %s/%s %d", filepath.Base(dir), name, version))
			}}
		wg.Go(func() { errs[i] = l.Run(nil) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func blocks(device string, n []int64) error {
	tell, err := teller()
	if err != nil {
		return err
	}
	l := &load.Blocks{Device: device, Offset: n[0], Blocks: n[1], Seed: uint64(n[2]), Steps: int(n[3]),
		Told: func(seq uint64) error { return tell(fmt.Sprintf("blocks %d %d", n[0], seq)) }}
	return l.Run()
}

// compare holds the blocks of a device to the last line of a list.
func compare(device string, n []int64, list string) error {
	lines, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var told uint64
	for line := range strings.Lines(string(lines)) {
		if _, err := fmt.Sscanf(line, "blocks %d %d", new(int64), &told); err != nil {
			return fmt.Errorf("%s: %q: %w", list, line, err)
		}
	}
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	shown, err := load.CheckBlocks(func(p []byte, off int64) error {
		_, err := f.ReadAt(p, n[0]+off)
		return err
	}, uint64(n[2]), n[1], told)
	if err == nil {
		fmt.Printf("verified %s: %d changes, %d flushed\n", device, shown, told)
	}
	return err
}

// teller returns how to tell a line. It returns when the line is outside.
func teller() (func(line string) error, error) {
	to := os.Getenv("TELL")
	if name, ok := strings.CutPrefix(to, "dm:"); ok {
		return marker(name)
	}
	// A write to a port that blocks returns when the emulator has taken it.
	fd, err := unix.Open(to, unix.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("TELL=%s: %w", to, err)
	}
	var mu sync.Mutex
	return func(line string) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := unix.Write(fd, []byte(line+"\n"))
		return err
	}, nil
}

// marker returns how to mark the log of a device of dm-log-writes. It does what dmsetup message does, without a process
// for each mark: a flush that was left out must not be made up for in the meantime by another.
func marker(name string) (func(line string) error, error) {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return func(line string) error {
		head := unix.DmIoctl{Version: [3]uint32{4, 0, 0}, Data_start: uint32(unsafe.Sizeof(unix.DmIoctl{}))}
		copy(head.Name[:], name)
		text := append(make([]byte, unsafe.Sizeof(unix.DmTargetMsg{})), "mark "+strings.ReplaceAll(line, " ", ":")+"\x00"...)
		head.Data_size = head.Data_start + uint32(len(text))
		b := append(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&head)), head.Data_start)), text...)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.DM_TARGET_MSG, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
			return fmt.Errorf("message to %s: %w", name, errno)
		}
		return nil
	}, nil
}

// check compares the files of a directory with the lines of a list that are about it.
func check(dir, list string) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	told := map[string]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var name string
		var version uint64
		if n, _ := fmt.Sscanf(lines.Text(), "file %s %d", &name, &version); n != 2 {
			continue
		}
		if name, ok := strings.CutPrefix(name, filepath.Base(dir)+"/"); ok {
			told[name] = max(told[name], version)
		}
	}
	n, err := load.CheckFiles(dir, told)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	fmt.Printf("verified %s: %d files\n", filepath.Base(dir), n)
	return nil
}

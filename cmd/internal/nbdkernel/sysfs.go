package nbdkernel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is one of the driver's block devices. Root is "" but in tests.
type Device struct {
	Index int
	Root  string
}

// ParseDevice reads "/dev/nbd3" (or "nbd3").
func ParseDevice(s string) (Device, error) {
	digits, ok := strings.CutPrefix(strings.TrimPrefix(s, "/dev/"), "nbd")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return Device{}, fmt.Errorf("%q is not an nbd device; give /dev/nbdN, such as /dev/nbd0", s)
	}
	return Device{Index: int(n)}, nil
}

func (d Device) name() string { return "nbd" + strconv.Itoa(d.Index) }

// Path is /dev/nbdN.
func (d Device) Path() string { return "/dev/" + d.name() }

func (d Device) sys(file string) string { return filepath.Join(d.Root, "/sys/block", d.name(), file) }

// Exists tells whether the driver has the device.
func (d Device) Exists() bool {
	_, err := os.Stat(d.sys(""))
	return err == nil
}

// Connected tells whether the device has a server: the driver shows a pid then.
func (d Device) Connected() bool {
	_, err := os.Stat(d.sys("pid"))
	return err == nil
}

// Size is the device's size in bytes; 0 when it is not connected.
func (d Device) Size() int64 {
	b, err := os.ReadFile(d.sys("size"))
	if err != nil {
		return 0
	}
	sectors, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return sectors * 512
}

// Backend is the identifier that Connect left with the kernel, or "".
func (d Device) Backend() string {
	b, _ := os.ReadFile(d.sys("backend"))
	return strings.TrimSpace(string(b))
}

// ReadOnly tells whether the kernel refuses writes to the device.
func (d Device) ReadOnly() bool {
	b, _ := os.ReadFile(d.sys("ro"))
	return strings.TrimSpace(string(b)) == "1"
}

// Attached lists the connected devices that have that backend. Root is "" but in tests.
func Attached(root, backend string) []Device {
	var all []Device
	dirs, _ := filepath.Glob(filepath.Join(root, "/sys/block/nbd*"))
	for _, dir := range dirs {
		if d, err := ParseDevice(filepath.Base(dir)); err == nil {
			if d.Root = root; backend != "" && d.Connected() && d.Backend() == backend {
				all = append(all, d)
			}
		}
	}
	return all
}

// Users says what holds the device or a partition of it: mount points, swap, devices on top. Nil when nothing does.
func (d Device) Users() []string {
	nodes := map[string]bool{} // /dev/nbd0, /dev/nbd0p1
	numbers := map[string]bool{}
	var users []string
	for _, dir := range d.withPartitions() {
		node := "/dev/" + filepath.Base(dir)
		nodes[node] = true
		if b, err := os.ReadFile(filepath.Join(dir, "dev")); err == nil {
			numbers[strings.TrimSpace(string(b))] = true
		}
		holders, _ := os.ReadDir(filepath.Join(dir, "holders"))
		for _, h := range holders {
			users = append(users, node+" is part of /dev/"+h.Name())
		}
	}
	d.lines("/proc/self/mountinfo", func(f []string) {
		if len(f) > 4 && (numbers[f[2]] || nodes[mountSource(f)]) {
			users = append(users, "mounted on "+unescape(f[4]))
		}
	})
	d.lines("/proc/swaps", func(f []string) {
		if len(f) > 0 && nodes[f[0]] {
			users = append(users, f[0]+" is swap")
		}
	})
	return users
}

func (d Device) withPartitions() []string {
	parts, _ := filepath.Glob(filepath.Join(d.sys(""), d.name()+"p*"))
	return append([]string{d.sys("")}, parts...)
}

func (d Device) lines(file string, each func(fields []string)) {
	f, err := os.Open(filepath.Join(d.Root, file))
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		each(strings.Fields(s.Text()))
	}
}

// mountSource is the device of a mountinfo line, the second field after the lone dash. btrfs mounts have a device
// number of their own, so the number alone does not find them.
func mountSource(f []string) string {
	for i := range f {
		if f[i] == "-" && i+2 < len(f) {
			return unescape(f[i+2])
		}
	}
	return ""
}

// unescape undoes the octal of blanks in /proc.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Claim opens the device for nobody else, which the kernel refuses while anything holds it in any mount namespace,
// and makes durable what was written to it. The caller closes the file.
func (d Device) Claim() (*os.File, error) {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: %w", d.Path(), ErrBusy)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: what was written to it cannot be made durable: %w", d.Path(), err)
	}
	return f, nil
}

// SetRetry sets how long a request goes without an answer until the driver looks whether its connection was replaced meanwhile, and
// sends it again on the new one. The driver takes 30 s, and so long would wait what was on the way when a daemon was restarted. It
// is for a device with one connection and no Request.Timeout, where the driver does nothing else then but write a line in its log:
// elsewhere the same setting is what takes a connection for dead.
func (d Device) SetRetry(after time.Duration) error {
	return os.WriteFile(d.sys("queue/io_timeout"), []byte(strconv.FormatInt(after.Milliseconds(), 10)), 0)
}

// WaitSize returns once the device has the size and its node is there.
func (d Device) WaitSize(ctx context.Context, size int64) error {
	return poll(ctx, func() error {
		if got := d.Size(); got != size {
			return fmt.Errorf("%s has %d bytes and should have %d", d.Path(), got, size)
		}
		_, err := os.Stat(filepath.Join(d.Root, d.Path()))
		return err
	})
}

// WaitGone returns once the device has no server.
func (d Device) WaitGone(ctx context.Context) error {
	return poll(ctx, func() error {
		if d.Connected() || d.Size() != 0 {
			return fmt.Errorf("%s is still connected", d.Path())
		}
		return nil
	})
}

// poll tries until it succeeds or ctx ends; sysfs cannot be waited for.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

package nbdkernel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The nbd driver's family, its commands and attributes (include/uapi/linux/nbd-netlink.h).
const (
	family  = "nbd"
	version = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdStatus      = 5

	attrIndex       = 1  // u32
	attrSize        = 2  // u64, bytes
	attrBlockSize   = 3  // u64, bytes
	attrTimeout     = 4  // u64, seconds
	attrServerFlags = 5  // u64, transmission flags
	attrClientFlags = 6  // u64
	attrSockets     = 7  // nested sockItem { sockFD u32 }
	attrDeadTimeout = 8  // u64, seconds
	attrDeviceList  = 9  // nested deviceItem { deviceIndex u32, deviceConnected u8 }
	attrBackend     = 10 // string; Linux 5.14

	sockItem        = 1
	sockFD          = 1
	deviceItem      = 1
	deviceIndex     = 1
	deviceConnected = 2
)

// AnyDevice asks Connect for the first free device.
const AnyDevice = -1

var (
	// ErrNoDriver means that the kernel has no nbd driver.
	ErrNoDriver = errors.New("the kernel's nbd driver is not there; load it with: modprobe nbd")
	// ErrBusy means that the device is connected, or open.
	ErrBusy = errors.New("the device is in use")
	// ErrNotRoot means that CAP_SYS_ADMIN is lacking.
	ErrNotRoot = errors.New("this needs root (CAP_SYS_ADMIN)")
)

// Request is what Connect tells the kernel.
type Request struct {
	Index       int    // N of /dev/nbdN, or AnyDevice
	Size        int64  // bytes, a multiple of BlockSize
	BlockSize   int    // 512 to 4096
	ServerFlags uint16 // as the server sent them
	// Timeout is how long the kernel waits for one answer before it takes the connection for dead. 0: for ever with
	// one connection, 30 s with several, since the request can go to another one then.
	Timeout time.Duration
	// DeadTimeout is how long I/O waits for Reconnect after the last connection broke; 0 fails it at once.
	DeadTimeout time.Duration
	// Backend is kept by the kernel; Reconnect must give the same.
	Backend string
	Sockets []int // descriptors of negotiated connections; the kernel takes references of its own
}

// Connect makes the device and returns its index. Errors: ErrNoDriver, ErrBusy, ErrNotRoot.
func Connect(r Request) (int, error) { return send(cmdConnect, r) }

// Reconnect gives a device whose connections broke new ones; what waits in it goes on.
func Reconnect(r Request) (int, error) { return send(cmdReconfigure, r) }

// Grow tells the kernel the size of a device whose export has grown: who uses it sees it at once. Backend is what Connect left. Linux 5.5.
func Grow(index int, backend string, size int64) error {
	data, err := encodeGrow(index, backend, size)
	if err == nil {
		_, err = execute(cmdReconfigure, data)
	}
	return err
}

func encodeGrow(index int, backend string, size int64) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIndex, uint32(index))
	ae.Uint64(attrSize, uint64(size))
	if backend != "" {
		ae.String(attrBackend, backend)
	}
	return ae.Encode()
}

func send(command uint8, r Request) (int, error) {
	data, err := r.encode()
	if err != nil {
		return 0, err
	}
	replies, err := execute(command, data)
	if err != nil {
		return 0, err
	}
	// The driver's reply says which device it took; an older one acknowledges only.
	for _, m := range replies {
		if ad, err := netlink.NewAttributeDecoder(m.Data); err == nil && m.Header.Command == command {
			for ad.Next() {
				if ad.Type() == attrIndex {
					return int(ad.Uint32()), nil
				}
			}
		}
	}
	if r.Index == AnyDevice {
		return 0, errors.New("the kernel connected a device but did not say which")
	}
	return r.Index, nil
}

func (r Request) encode() ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	if r.Index != AnyDevice {
		ae.Uint32(attrIndex, uint32(r.Index))
	}
	ae.Uint64(attrSize, uint64(r.Size))
	ae.Uint64(attrBlockSize, uint64(r.BlockSize))
	ae.Uint64(attrServerFlags, uint64(r.ServerFlags))
	ae.Uint64(attrClientFlags, 0)
	if r.Timeout > 0 {
		ae.Uint64(attrTimeout, seconds(r.Timeout))
	}
	if r.DeadTimeout > 0 {
		ae.Uint64(attrDeadTimeout, seconds(r.DeadTimeout))
	}
	if r.Backend != "" {
		ae.String(attrBackend, r.Backend)
	}
	ae.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, fd := range r.Sockets {
			list.Nested(sockItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(sockFD, uint32(fd))
				return nil
			})
		}
		return nil
	})
	return ae.Encode()
}

// seconds rounds up, since 0 means something else.
func seconds(d time.Duration) uint64 { return uint64(math.Ceil(d.Seconds())) }

// Disconnect tells the server goodbye and frees the device; what is in flight fails. Flush first. A device that
// is not connected is not an error.
func Disconnect(index int) error {
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(attrIndex, uint32(index))
	data, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = execute(cmdDisconnect, data)
	return err
}

// Connected tells which of the driver's devices are connected, by index.
func Connected() (map[int]bool, error) {
	replies, err := execute(cmdStatus, nil)
	if err != nil {
		return nil, err
	}
	devices := map[int]bool{}
	for _, m := range replies {
		if m.Header.Command == cmdStatus {
			if err := decodeDevices(m.Data, devices); err != nil {
				return nil, fmt.Errorf("the nbd driver's list of devices: %w", err)
			}
		}
	}
	return devices, nil
}

func decodeDevices(data []byte, devices map[int]bool) error {
	ad, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	for ad.Next() {
		if ad.Type() != attrDeviceList {
			continue
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				if list.Type() == deviceItem {
					list.Nested(func(item *netlink.AttributeDecoder) error { return decodeDevice(item, devices) })
				}
			}
			return nil
		})
	}
	return ad.Err()
}

func decodeDevice(item *netlink.AttributeDecoder, devices map[int]bool) error {
	index, connected := -1, false
	for item.Next() {
		switch item.Type() {
		case deviceIndex:
			index = int(item.Uint32())
		case deviceConnected:
			connected = item.Uint8() != 0
		}
	}
	if index >= 0 {
		devices[index] = connected
	}
	return nil
}

// execute does one command on a connection of its own, so that an acknowledgement that nobody reads is never
// taken for the answer to the next.
func execute(command uint8, data []byte) ([]genetlink.Message, error) {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	defer c.Close()
	f, err := findFamily(c)
	if err != nil {
		return nil, err
	}
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: version}, Data: data}
	replies, err := c.Execute(m, f.ID, netlink.Request|netlink.Acknowledge)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, ErrNotRoot
	case errors.Is(err, unix.EBUSY):
		return nil, ErrBusy
	case err != nil:
		return nil, fmt.Errorf("nbd driver: %w", err)
	}
	return replies, nil
}

// findFamily loads the driver when it is not there and we may.
func findFamily(c *genetlink.Conn) (genetlink.Family, error) {
	f, err := c.GetFamily(family)
	if errors.Is(err, os.ErrNotExist) && os.Geteuid() == 0 {
		// Where modprobe is missing or fails, the message below says it all.
		_ = exec.Command("modprobe", "nbd").Run()
		f, err = c.GetFamily(family)
	}
	if errors.Is(err, os.ErrNotExist) {
		return f, ErrNoDriver
	}
	return f, err
}

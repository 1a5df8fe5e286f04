package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"cawrm/wan"
)

// What every system of the virtual machine stands on: two disks of memory, and two addresses of one kernel whose packets to each other
// cross a veth pair with netem at both ends.
const (
	nearDisk, farDisk = "/dev/ram0", "/dev/ram1"
	nearIP, farIP     = "10.9.0.1", "10.9.0.2"
)

// command runs a program of the machine.
func command(ctx context.Context, line string) (string, error) {
	return output(ctx, strings.Fields(line)...)
}

// commands runs several, up to the first that fails.
func commands(ctx context.Context, lines ...string) error {
	for _, l := range lines {
		if _, err := command(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func setting(path, value string) error {
	return os.WriteFile(path, []byte(value), 0o644)
}

// readNumber is the number in a file of sysfs.
func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// disks makes the two, each of that many bytes; what is not written takes no memory.
func disks(ctx context.Context, size int64) error {
	_, err := command(ctx, fmt.Sprintf("modprobe brd rd_nr=2 rd_size=%d", size>>10))
	return err
}

// wire is the line between the two addresses.
type wire struct{ p wan.Profile }

// lay makes it. DRBD 8.4 knows only the first network namespace, so both ends are in there, and rules lead what one address
// sends to the other through the pair instead of the loopback device.
func lay(ctx context.Context, p wan.Profile) (*wire, error) {
	for _, s := range p.Script {
		if _, err := silences(s); err != nil {
			return nil, err
		}
	}
	if err := commands(ctx, "modprobe veth", "modprobe sch_netem", "modprobe tcp_bbr", "ip link add va type veth peer name vb"); err != nil {
		return nil, err
	}
	for _, dev := range []string{"all", "default", "va", "vb"} {
		for name, value := range map[string]string{"accept_local": "1", "rp_filter": "0", "arp_ignore": "1"} {
			if err := setting("/proc/sys/net/ipv4/conf/"+dev+"/"+name, value); err != nil {
				return nil, err
			}
		}
	}
	congestion := p.Congestion
	switch {
	case congestion == "" && p.Loss > 0:
		congestion = "bbr" // any other takes each loss for a line that is full
	case congestion == "":
		congestion = "cubic"
	}
	if err := setting("/proc/sys/net/ipv4/tcp_congestion_control", congestion); err != nil {
		return nil, err
	}
	if err := commands(ctx,
		"ip addr add "+nearIP+"/32 dev va", "ip addr add "+farIP+"/32 dev vb", "ip link set va up", "ip link set vb up",
		"ip rule add pref 10 iif va lookup local", "ip rule add pref 11 iif vb lookup local", // what has crossed has arrived
		"ip rule add pref 20 to "+farIP+" lookup 101", "ip rule add pref 21 to "+nearIP+" lookup 102",
		"ip route add "+farIP+" dev va src "+nearIP+" table 101", "ip route add "+nearIP+" dev vb src "+farIP+" table 102",
		"ip rule add pref 100 lookup local", "ip rule del pref 0",
	); err != nil {
		return nil, err
	}
	for dev, to := range map[string][2]string{"va": {farIP, "vb"}, "vb": {nearIP, "va"}} {
		mac, err := os.ReadFile("/sys/class/net/" + to[1] + "/address")
		if err != nil {
			return nil, err
		}
		if _, err := command(ctx, fmt.Sprintf("ip neigh add %s lladdr %s dev %s", to[0], strings.TrimSpace(string(mac)), dev)); err != nil {
			return nil, err
		}
	}
	w := &wire{p}
	return w, w.heal()
}

// shape sets both ends. A profile without anything has no netem.
func (w *wire) shape(p wan.Profile) error { return errors.Join(wan.Shape("va", p), wan.Shape("vb", p)) }

// cut makes the line silent in both directions: nobody is told.
func (w *wire) cut() error {
	p := w.p
	p.Loss = 1
	return w.shape(p)
}

func (w *wire) heal() error { return w.shape(w.p) }

// sent is how many bytes have gone to the far end, with the headers of their packets.
func (w *wire) sent() int64 {
	n, _ := readNumber("/sys/class/net/va/statistics/tx_bytes")
	return n
}

// silences says whether a step of a profile's script makes the line silent or ends that; this line can do nothing else.
func silences(s wan.Step) (bool, error) {
	switch verb := strings.TrimSpace(s.Do); verb {
	case "cut", "stall", "refuse":
		return true, nil
	case "heal":
		return false, nil
	default:
		return false, fmt.Errorf("the line in the virtual machine cannot do the step %q of a profile, only cut, stall, refuse and heal", verb)
	}
}

// play plays the profile's script until ctx ends, and heals.
func (w *wire) play(ctx context.Context) error {
	start := time.Now()
	for ctx.Err() == nil && len(w.p.Script) > 0 {
		for _, s := range w.p.Script {
			select {
			case <-ctx.Done():
				return w.heal()
			case <-time.After(time.Until(start.Add(s.At))):
			}
			do := w.heal
			if silent, _ := silences(s); silent {
				do = w.cut
			}
			if err := do(); err != nil {
				return err
			}
		}
		if w.p.Repeat == 0 {
			break
		}
		start = start.Add(w.p.Repeat)
	}
	<-ctx.Done()
	return w.heal()
}

// plain is the rate of one TCP connection that does nothing else, in bytes a second: what this kernel gets out of the line.
func (w *wire) plain(d time.Duration) (float64, error) {
	l, err := net.Listen("tcp", farIP+":9000")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return // the other side waits no longer than it can
		}
		defer c.Close()
		for p := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(p) // fails when the other side has closed
		}
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	begin := 10 * w.p.Delay // it finds its rate in that time
	c.SetReadDeadline(time.Now().Add(begin))
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("a plain connection over the line ended: %w", err)
	}
	start := time.Now()
	c.SetReadDeadline(start.Add(d))
	n, _ := io.Copy(io.Discard, c)
	return float64(n) / time.Since(start).Seconds(), nil
}

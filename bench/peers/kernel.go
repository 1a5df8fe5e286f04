package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// resident is a system in the virtual machine. Its volume is a block device of the kernel.
type resident interface {
	// start makes the volume, without a mirror.
	start(ctx context.Context) error
	// open opens the volume.
	open() (volume, error)
	// mirror begins to mirror, and returns when the first synchronisation has begun.
	mirror(ctx context.Context) error
	// synced says whether the system itself takes its mirror for complete.
	synced(ctx context.Context) (bool, error)
	// look opens what the far site has, past the line.
	look(ctx context.Context) (volume, error)
	// part takes the mirror out of service, join takes it in again: what an operator does who knows of an outage.
	part(ctx context.Context) error
	join(ctx context.Context) error
}

// tenant is a resident's name, and what it needs.
type tenant struct {
	name     string
	programs []string // of the host, copied
	modules  []string
	disk     int64 // size of each of the two disks
	make     func(line wan.Profile) resident
}

var residents = []tenant{
	{"cawrm (vm)", nil, []string{"nbd"}, 512 << 20, func(wan.Profile) resident { return &native{size: volumeSize} }},
	{"DRBD A", drbdPrograms, drbdModules, volumeSize + 1<<20, func(p wan.Profile) resident { return newDRBD("A", p) }},
	{"DRBD B", drbdPrograms, drbdModules, volumeSize + 1<<20, func(p wan.Profile) resident { return newDRBD("B", p) }},
	{"DRBD C", drbdPrograms, drbdModules, volumeSize + 1<<20, func(p wan.Profile) resident { return newDRBD("C", p) }},
	{"md write-behind", []string{"mdadm", "nbdkit", "nbd-client"}, []string{"raid1", "nbd"}, volumeSize + 4<<20, func(wan.Profile) resident { return &mdraid{} }},
}

var (
	drbdPrograms = []string{"drbdsetup-84", "drbdmeta"}
	drbdModules  = []string{"drbd"}
)

// output runs a program and returns what it prints; an error holds all of it.
func output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// drbd is two nodes of DRBD 8.4 in one kernel, each a resource of its own: r0 on the near disk, r1 on the far one.
type drbd struct {
	protocol string
	rate     int64 // bytes a second of the line
}

const (
	drbdNear = "ipv4:" + nearIP + ":7788"
	drbdFar  = "ipv4:" + farIP + ":7789"
)

func newDRBD(protocol string, p wan.Profile) *drbd {
	rate := p.Rate
	if rate == 0 {
		rate = 200 << 20
	}
	return &drbd{protocol, rate}
}

func (d *drbd) start(ctx context.Context) error {
	if err := commands(ctx, "modprobe drbd minor_count=4 usermode_helper=/bin/true"); err != nil {
		return err
	}
	for i, disk := range []string{nearDisk, farDisk} {
		// A disk of memory has no cache to flush. The synchronisation has the line's rate: its controller, which is to find it, starts
		// at a few hundred KiB a second.
		if err := commands(ctx,
			fmt.Sprintf("drbdmeta --force %d v08 %s internal create-md", i, disk),
			fmt.Sprintf("drbdsetup-84 new-resource r%d", i), fmt.Sprintf("drbdsetup-84 new-minor r%d %d 0", i, i),
			fmt.Sprintf("drbdsetup-84 attach %d %s %s internal --disk-flushes=no --md-flushes=no --c-plan-ahead=0 --c-min-rate=0 --resync-rate=%dk", i, disk, disk, d.rate>>10),
		); err != nil {
			return err
		}
	}
	return commands(ctx, "drbdsetup-84 primary 0 --force")
}

func (d *drbd) open() (volume, error)                { return openDevice("/dev/drbd0", 0) }
func (d *drbd) look(context.Context) (volume, error) { return readDevice(farDisk, 0) }
func (d *drbd) mirror(ctx context.Context) error     { return d.join(ctx) }
func (d *drbd) synced(context.Context) (bool, error) {
	b, err := os.ReadFile("/proc/drbd")
	if err != nil {
		return false, err
	}
	return drbdSynced(string(b))
}

var (
	drbdState = regexp.MustCompile(`(?m)^ 0: cs:(\w+) .*ds:(\S+)`)
	drbdLeft  = regexp.MustCompile(`(?ms)^ 0: .*?oos:(\d+)`)
)

// drbdSynced reads /proc/drbd: is the first device connected, and nothing out of sync.
func drbdSynced(text string) (bool, error) {
	state, left := drbdState.FindStringSubmatch(text), drbdLeft.FindStringSubmatch(text)
	if state == nil || left == nil {
		return false, fmt.Errorf("/proc/drbd says nothing of device 0:\n%s", text)
	}
	if state[1] == "StandAlone" {
		return false, errors.New("DRBD has given its mirror up (StandAlone)")
	}
	return state[1] == "Connected" && state[2] == "UpToDate/UpToDate" && left[1] == "0", nil
}

func (d *drbd) part(ctx context.Context) error {
	if _, err := command(ctx, "drbdsetup-84 disconnect "+drbdNear+" "+drbdFar); err != nil {
		return err
	}
	// The far node goes by itself, or is told.
	_, _ = command(ctx, "drbdsetup-84 disconnect "+drbdFar+" "+drbdNear)
	return nil
}

func (d *drbd) join(ctx context.Context) error {
	return commands(ctx,
		"drbdsetup-84 connect r0 "+drbdNear+" "+drbdFar+" --protocol="+d.protocol,
		"drbdsetup-84 connect r1 "+drbdFar+" "+drbdNear+" --protocol="+d.protocol)
}

// mdraid is a raid1 of the near disk and the far one, which nbdkit serves: write-mostly, with write-behind.
type mdraid struct {
	offset int64 // of the array's data on its members; 0: there is no array yet
}

const (
	mdFiles  = "/sys/block/md0/md/"
	mdBehind = 1024 // writes that may be behind
	// A fine bitmap costs a round trip for nearly every write, as it is on both members; a coarse one makes every resumption a
	// full copy. This is between.
	mdChunk = "1M"
)

func (m *mdraid) start(ctx context.Context) error {
	return commands(ctx, "modprobe nbd nbds_max=2", "modprobe raid1",
		"nbdkit -P /run/nbdkit.pid -i "+farIP+" -p 10809 file "+farDisk)
}

// open opens the near disk as long as there is no array: that is what one has without a mirror.
func (m *mdraid) open() (volume, error) {
	if m.offset == 0 {
		return openDevice(nearDisk, 0)
	}
	return openDevice("/dev/md0", 0)
}

func (m *mdraid) look(context.Context) (volume, error) { return readDevice(farDisk, m.offset) }

func (m *mdraid) attach(ctx context.Context) error {
	var err error
	for range 50 { // nbdkit may have only just begun
		if _, err = output(ctx, "nbd-client", "-N", "", farIP, "10809", "/dev/nbd0", "-timeout", "60"); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func (m *mdraid) create(members string) string {
	return "mdadm --create /dev/md0 --run -l1 -n2 --metadata=1.2 --bitmap=internal --bitmap-chunk=" + mdChunk +
		fmt.Sprintf(" --write-behind=%d %s", mdBehind, members)
}

func (m *mdraid) mirror(ctx context.Context) error {
	if err := m.attach(ctx); err != nil {
		return err
	}
	if _, err := command(ctx, m.create(nearDisk+" --write-mostly /dev/nbd0")); err != nil {
		return err
	}
	sectors, err := readNumber(mdFiles + "dev-ram0/offset")
	m.offset = sectors * 512
	return err
}

// settle makes the array anew with the far disk first: in Linux 6.1 write-behind does nothing unless the first member is
// write-mostly. The two are alike by now.
func (m *mdraid) settle(ctx context.Context) error {
	if err := commands(ctx, "mdadm --stop /dev/md0", m.create("--assume-clean --write-mostly /dev/nbd0 "+nearDisk)); err != nil {
		return err
	}
	return errors.Join(setting(mdFiles+"dev-ram0/state", "-writemostly"), setting(mdFiles+"bitmap/backlog", fmt.Sprint(mdBehind)))
}

func (m *mdraid) synced(context.Context) (bool, error) {
	degraded, err := readNumber(mdFiles + "degraded")
	if err != nil {
		return false, err
	}
	b, err := os.ReadFile(mdFiles + "sync_action")
	if err != nil {
		return false, err
	}
	action := strings.TrimSpace(string(b))
	if degraded > 0 && action == "idle" {
		states, _ := os.ReadFile(mdFiles + "dev-nbd0/state")
		return false, fmt.Errorf("md has thrown its mirror out (%s)", strings.TrimSpace(string(states)))
	}
	return degraded == 0 && action == "idle", nil
}

func (m *mdraid) part(ctx context.Context) error {
	return commands(ctx, "mdadm /dev/md0 --fail /dev/nbd0", "mdadm /dev/md0 --remove /dev/nbd0")
}

func (m *mdraid) join(ctx context.Context) error {
	_, err := command(ctx, "mdadm /dev/md0 --re-add /dev/nbd0")
	return err
}

// native is cawrm, as two daemons whose containers are the two disks. The kernel's nbd driver makes a device of the volume.
type native struct {
	size int64
	a, b *site.Site
}

func (n *native) start(ctx context.Context) error {
	const dir = "/run"
	var err error
	if n.a, err = site.New("/bin/cawrm", dir, "v"); err != nil {
		return err
	}
	if n.b, err = site.New("/bin/cawrm", dir, "v"); err != nil {
		return err
	}
	n.a.Path, n.a.Control, n.a.NBD = nearDisk, "unix:/run/a.control", "unix:/run/a.nbd"
	n.b.Path, n.b.Control, n.b.NBD, n.b.Peer = farDisk, "unix:/run/b.control", "unix:/run/b.nbd", farIP+":7000"
	n.b.Extra = []string{"--insecure"} // the others have no encryption either
	if err := errors.Join(n.a.Create(fmt.Sprint(n.size)), n.b.CreateMirror()); err != nil {
		return err
	}
	if err := errors.Join(n.b.Start(ctx), n.a.Start(ctx), commands(ctx, "modprobe nbd nbds_max=2")); err != nil {
		return err
	}
	_, err = n.a.Run("attach", "v", "/dev/nbd0", "--control", n.a.Control)
	return err
}

func (n *native) open() (volume, error) { return openDevice("/dev/nbd0", 0) }

func (n *native) look(ctx context.Context) (volume, error) {
	c, err := nbdclient.Dial(ctx, n.b.NBD, "v")
	if err != nil {
		return nil, err // not a volume that is nil
	}
	return c, nil
}

func (n *native) change(args ...string) error {
	_, err := n.a.Run(append(append([]string{"mirror"}, args...), "--control", n.a.Control)...)
	return err
}

func (n *native) mirror(context.Context) error {
	return n.change("add", "v", "b", site.MirrorURL(n.b.Peer, "v"), "compress=off")
}
func (n *native) part(context.Context) error { return n.change("pause", "v", "b") }
func (n *native) join(context.Context) error { return n.change("resume", "v", "b") }

func (n *native) synced(ctx context.Context) (bool, error) {
	v, err := n.a.Status(ctx)
	return v.Synced(), err
}

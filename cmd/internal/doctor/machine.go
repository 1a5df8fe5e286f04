package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernel looks at the version, and at the driver that cawrm attach needs.
func kernel() []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return []Finding{{"kernel", Note, "uname: " + err.Error(), ""}}
	}
	release := unix.ByteSliceToString(u.Release[:])
	all := []Finding{{What: "kernel", Grade: OK, Says: "Linux " + release}}
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 4 || major == 4 && minor < 18) {
		all[0].Grade, all[0].Mend = Note, "it is older than 4.18, which nobody tries cawrm with"
	}
	nbd := Finding{"nbd", OK, "the kernel's nbd driver is loaded", ""}
	switch {
	case word("/sys/module/nbd/parameters/nbds_max") != "":
	case hasModule(release, "nbd"):
		nbd.Says = "the kernel's nbd driver is there, and is loaded when it is needed by root"
	default:
		nbd.Grade, nbd.Says = Note, "this kernel has no nbd driver"
		nbd.Mend = "`cawrm attach` needs it; qemu, libnbd and fio do not (Debian: linux-image of your architecture, not the cloud one)"
	}
	return append(all, nbd)
}

func hasModule(release, name string) bool {
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		if strings.Contains(word("/lib/modules", release, list), "/"+name+".ko") {
			return true
		}
	}
	return false
}

// limits looks at what the process may have.
func limits() []Finding {
	var files unix.Rlimit
	f := Finding{What: "limits", Grade: OK}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		f.Grade, f.Says = Note, err.Error()
	} else if f.Says = fmt.Sprintf("%d open files", files.Max); files.Max < 1024 {
		f.Grade, f.Mend = Fail, "each client, mirror and volume takes one or more: ulimit -n 65536, or LimitNOFILE= of the unit"
	}
	all := []Finding{f}
	if available, ok := meminfo("MemAvailable"); ok {
		m := Finding{"memory", OK, fmt.Sprintf("%d MiB available", available>>10), ""}
		if available < 512<<10 {
			m.Grade, m.Mend = Note, "a busy volume takes up to 300 MiB, payloads of all clients up to 512 MiB more"
		}
		all = append(all, m)
	}
	return all
}

// meminfo is a line of /proc/meminfo, in KiB.
func meminfo(key string) (int64, bool) {
	for line := range strings.Lines(word("/proc/meminfo") + "\n") {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// clock: lags are told in seconds of this machine's clock, and each request reads it twice.
func clock() []Finding {
	var t unix.Timex
	f := Finding{"clock", OK, "synchronised", ""}
	switch state, err := unix.Adjtimex(&t); {
	case err != nil:
		f.Grade, f.Says = Note, "nobody can tell whether it is synchronised: "+err.Error()
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		f.Grade, f.Says = Note, "not synchronised"
		f.Mend = "histories and events of two sites are hard to compare: run chrony or systemd-timesyncd (data do not depend on it)"
	}
	s := Finding{"clock", OK, "read by " + word("/sys/devices/system/clocksource/clocksource0/current_clocksource"), ""}
	if strings.HasSuffix(s.Says, "hpet") || strings.HasSuffix(s.Says, "acpi_pm") {
		s.Grade, s.Mend = Note, "reading that takes a microsecond, several times a request: find out why tsc is not trusted (dmesg)"
	}
	return []Finding{f, s}
}

// network looks at what a long line needs.
func network() []Finding {
	bytes := func(path string) int64 {
		f := strings.Fields(word(path))
		if len(f) != 3 {
			return 0
		}
		n, _ := strconv.ParseInt(f[2], 10, 64)
		return n
	}
	read, write := bytes("/proc/sys/net/ipv4/tcp_rmem"), bytes("/proc/sys/net/ipv4/tcp_wmem")
	window := min(read, write)
	b := Finding{"network", OK, fmt.Sprintf("TCP windows of up to %.1f MiB: %.0f Mbit/s at 50 ms", float64(window)/(1<<20), float64(window)*8/0.05/1e6), ""}
	if window < 4<<20 {
		b.Grade, b.Mend = Note, "for a long fast line: sysctl net.ipv4.tcp_rmem='4096 131072 33554432' net.ipv4.tcp_wmem='4096 16384 33554432'"
	}
	c := Finding{"network", OK, "congestion control " + word("/proc/sys/net/ipv4/tcp_congestion_control"), ""}
	if !slices.Contains(strings.Fields(word("/proc/sys/net/ipv4/tcp_available_congestion_control")), "bbr") {
		c.Grade, c.Mend = Note, "on a line that loses packets bbr is many times faster: modprobe tcp_bbr"
	}
	return []Finding{b, c}
}

// port tries whether an address can be listened at.
func port(addr string) Finding {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
		return Finding{"port", OK, addr + " is free", ""}
	}
	f := Finding{What: "port", Grade: Fail, Says: fmt.Sprintf("%s: %v", addr, err)}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		f.Grade, f.Mend = Note, "a running cawrm, or somebody else: ss -ltnp sport = :"+addr[strings.LastIndex(addr, ":")+1:]
	case errors.Is(err, unix.EACCES):
		f.Mend = "ports below 1024 are root's"
	default:
		f.Mend = "ip addr says which addresses this machine has"
	}
	return f
}

// folder is where a path that may not be there yet will be.
func folder(path string) string {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

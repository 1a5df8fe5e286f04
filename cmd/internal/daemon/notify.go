package daemon

import (
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// What systemd is told; without NOTIFY_SOCKET nobody is.
const (
	sdReady    = systemd.SdNotifyReady
	sdStopping = systemd.SdNotifyStopping
	sdWatchdog = systemd.SdNotifyWatchdog
)

func (d *daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd cannot be notified", "error", err)
	}
}

// notifyReload tells that the configuration is read; READY=1 follows when that is over (Type=notify-reload).
func (d *daemon) notifyReload() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		d.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000))
	}
}

// watchdog ticks twice in the time after which systemd takes a silent daemon for dead; never when that is off.
func (d *daemon) watchdog() (<-chan time.Time, func()) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog", "error", err)
	}
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(interval / 2)
	return t.C, t.Stop
}

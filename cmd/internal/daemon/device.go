package daemon

import (
	"cawrm/aodi"
	"cawrm/cawrm"
	"cawrm/nbdsrv"
)

// device shows a volume to NBD clients. All calls go straight to it, but that two packages which do not know
// each other have two errors for "this would block".
type device struct{ *aodi.Volume }

func (d device) TryReadAt(p []byte, off int64) error {
	return translate(d.Volume.TryReadAt(p, off))
}

func (d device) TryWriteAt(p []byte, off int64) error {
	return translate(d.Volume.TryWriteAt(p, off))
}

// Changes counts the log's records.
func (d device) Changes() (n uint64, ok bool) {
	end, _ := d.Volume.Pointers()
	return uint64(end), true
}

// sourceDevice is a volume whose flushes may have to wait for mirrors too.
type sourceDevice struct {
	device
	source *cawrm.Source
}

func (d sourceDevice) Flush() error { return d.source.Flush() }

// Changes lets no flush share another's call that has to wait for mirrors: whether it has may change in between.
func (d sourceDevice) Changes() (n uint64, ok bool) {
	n, ok = d.device.Changes()
	return n, ok && !d.source.FlushesWait()
}

func (d sourceDevice) ReadAt(p []byte, off int64) error { return d.source.ReadAt(p, off) }

func (d sourceDevice) WriteAt(p []byte, off int64, fua bool) error {
	return d.flushed(d.device.WriteAt(p, off, fua), fua)
}

func (d sourceDevice) Trim(off, n int64, fua bool) error {
	return d.flushed(d.device.Trim(off, n, fua), fua)
}

func (d sourceDevice) WriteZeroes(off, n int64, noHole, fua bool) error {
	return d.flushed(d.device.WriteZeroes(off, n, noHole, fua), fua)
}

// flushed completes a request with FUA that the volume has done.
func (d sourceDevice) flushed(err error, fua bool) error {
	if err == nil && fua {
		return d.source.Flushed()
	}
	return err
}

// translate is on the way of each small request, so it compares and does not unwrap.
func translate(err error) error {
	if err == aodi.ErrWouldBlock { //nolint:errorlint // returned bare
		return nbdsrv.ErrWouldBlock
	}
	return err
}

// mirrorDevice shows a mirror at its last committed cut, read-only. Its size is 0 until a source has reached it.
type mirrorDevice struct{ device }

// Flush has nothing to do: no client of a mirror has written, and what a source wrote was durable before it was shown.
func (mirrorDevice) Flush() error { return nil }

var (
	_ nbdsrv.Device      = device{}
	_ nbdsrv.Nonblocking = device{}
	_ nbdsrv.Counting    = device{}
	_ nbdsrv.Device      = sourceDevice{}
	_ nbdsrv.Nonblocking = sourceDevice{}
	_ nbdsrv.Counting    = sourceDevice{}
	_ nbdsrv.Device      = mirrorDevice{}
	_ nbdsrv.Nonblocking = mirrorDevice{}
	_ nbdsrv.Counting    = mirrorDevice{}
)

// export is how NBD shows the volume.
func (v *served) export() nbdsrv.Export {
	e := export(v.cfg.Name, v.volume)
	e.Admit = v.admit
	if dev, ok := e.Device.(device); ok && v.source != nil {
		e.Device = sourceDevice{dev, v.source}
	}
	if v.cfg.Rescue {
		e.Device, e.ReadOnly, e.Description = mirrorDevice{device{v.volume}}, true, "cawrm rescue, read-only"
	}
	return e
}

// export is how NBD shows a volume.
func export(name string, v *aodi.Volume) nbdsrv.Export {
	// A flush of a volume covers what all connections wrote, so clients may use several.
	e := nbdsrv.Export{Name: name, MultiConn: true}
	if v.Info().Role == aodi.RoleMirror {
		e.Device, e.ReadOnly, e.Description = mirrorDevice{device{v}}, true, "cawrm mirror, read-only"
		return e
	}
	e.Device, e.Description = device{v}, "cawrm volume"
	return e
}

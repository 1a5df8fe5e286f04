package daemon

import (
	"context"
	"errors"
	"fmt"

	"cawrm/aodi"
	"cawrm/cmd/internal/control"
)

// resize is the command resize.
func (d *daemon) resize(_ context.Context, r control.ResizeRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if v.cfg.Rescue {
		return nil, fmt.Errorf("volume %s is a rescue, which is read-only", v.cfg.Name)
	}
	a := control.Resized{SizeBefore: v.volume.Size(), CapacityBefore: v.volume.Space().Capacity}
	if r.Capacity != nil { // before the size: writes to what is new may need it
		err = v.volume.SetCapacity(*r.Capacity)
		if errors.Is(err, aodi.ErrInUse) {
			a.CleanFirst, err = err.Error(), nil
		}
	}
	if err == nil && r.Size != 0 && a.CleanFirst == "" {
		err = v.volume.Resize(r.Size)
	}
	a.Size, a.Capacity = v.volume.Size(), v.volume.Space().Capacity
	a.LeastCapacity, _ = v.volume.LeastCapacity()
	if a.Size != a.SizeBefore || a.Capacity != a.CapacityBefore {
		d.log.Info("resized", "volume", v.cfg.Name, "size", a.Size, "size_before", a.SizeBefore, "capacity", a.Capacity, "capacity_before", a.CapacityBefore)
	}
	return a, err
}

package show

import (
	"fmt"
	"io"

	"cawrm/cmd/internal/control"
)

// Snapshots writes a line for each snapshot of a volume.
func Snapshots(w io.Writer, volume string, list []control.Snapshot) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(w, "%s has no snapshots\n", clean(volume))
		return err
	}
	rows := [][]string{{"SNAPSHOT", "MADE", "POSITION", "SIZE", "USED"}}
	for _, s := range list {
		rows = append(rows, []string{clean(volume + "@" + s.Name), s.Time, fmt.Sprint(s.Position), Bytes(s.Size), Bytes(s.UsedBytes)})
	}
	return table(w, rows)
}

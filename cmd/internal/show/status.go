package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"cawrm/cmd/internal/control"
)

const barWidth = 20

// Status writes one table of volumes, one of their space and, when there are any, one of mirrors: a line each.
func Status(w io.Writer, s control.Status) error {
	if len(s.Volumes) == 0 {
		_, err := fmt.Fprintln(w, "no volumes")
		return err
	}
	rows := [][]string{{"VOLUME", "ROLE", "SIZE", "USED", "ON DISK", "END_PTR", "DURABLE_PTR", "NOTE"}}
	var space, mirrors [][]string
	for _, v := range s.Volumes {
		rows = append(rows, volumeRow(v))
		if v.Space != nil {
			space = append(space, spaceRow(v.Name, *v.Space))
		}
		for _, m := range v.Mirrors {
			mirrors = append(mirrors, mirrorRow(v, m))
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if err := further(w, []string{"SPACE", "CAPACITY", "USED", "LIVE", "GARBAGE", "SEGMENTS FREE", "AMPLIFICATION", "NOTE"}, space); err != nil {
		return err
	}
	return further(w, []string{"MIRROR", "STATE", "SYNC_PTR", "LAG", "", "", "RATE", "SENT", "NOTE"}, mirrors)
}

// further writes one more table, if it has rows.
func further(w io.Writer, head []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return table(w, append([][]string{head}, rows...))
}

// spaceRow is how a container is used.
func spaceRow(name string, s control.Space) []string {
	capacity, free, amplification, note := "none", fmt.Sprint(s.SegmentsFree), "", ""
	if s.CapacityBytes > 0 {
		capacity = Bytes(s.CapacityBytes)
	}
	if s.SegmentsLimit > 0 {
		free = fmt.Sprintf("%d of %d", s.SegmentsFree, s.SegmentsLimit)
	}
	if s.WriteAmplification > 0 {
		amplification = fmt.Sprintf("%.2f", s.WriteAmplification)
	}
	switch {
	case s.MaxLiveBytes > 0 && s.LiveBytes >= s.MaxLiveBytes:
		note = fmt.Sprintf("FULL: writes fail with more than %s live", Bytes(s.MaxLiveBytes))
	case s.WritesWaiting > 0:
		note = fmt.Sprintf("%d writes wait for space", s.WritesWaiting)
	}
	return []string{clean(name), capacity, Bytes(s.UsedBytes), Bytes(s.LiveBytes), Bytes(s.GarbageBytes), free, amplification, note}
}

func volumeRow(v control.Volume) []string {
	return []string{
		clean(v.Name), v.Role, sizeOf(v), Bytes(v.UsedBytes), Bytes(v.PhysicalBytes),
		fmt.Sprint(v.EndPtr), fmt.Sprint(v.DurablePtr), volumeNote(v),
	}
}

func sizeOf(v control.Volume) string {
	if v.Size == 0 && v.Role == "mirror" {
		return "unknown"
	}
	return Bytes(v.Size)
}

// volumeNote says what a person should know beside the numbers; nothing when all is well.
func volumeNote(v control.Volume) string {
	var notes []string
	if v.Error != "" {
		notes = append(notes, "FAILED: "+v.Error)
	}
	if v.Conflict != "" {
		notes = append(notes, "CONFLICT: "+v.Conflict)
	}
	if v.KeptTail != "" {
		notes = append(notes, "what only this one had is the snapshot "+v.KeptTail)
	}
	if v.ChecksumErrors > 0 {
		notes = append(notes, fmt.Sprintf("%d reads did not match their checksum", v.ChecksumErrors))
	}
	if v.CloneOf != "" {
		notes = append(notes, "clone of "+v.CloneOf)
	}
	if v.Mended > 0 {
		notes = append(notes, fmt.Sprintf("%d chunks mended from another site", v.Mended))
	}
	switch v.Role {
	case "mirror":
		notes = append(notes, sourceNote(v))
	case control.RoleRescue:
		notes = append(notes, rescueNote(v.Rescue))
	}
	return clean(strings.Join(notes, "; "))
}

// rescueNote says what is lost.
func rescueNote(r *control.Rescue) string {
	if r == nil || len(r.Lost) == 0 {
		return "read-only; nothing is known to be lost"
	}
	return "read-only; LOST: " + strings.Join(r.Lost, "; ")
}

// sourceNote says who feeds a mirror, and if nobody does, since when and why.
func sourceNote(v control.Volume) string {
	src := v.Source
	note := "waits for its source"
	switch {
	case src == nil:
		return "not fed: serve has no --peer"
	case src.Connected:
		return "fed by " + src.Address
	case src.Address != "":
		note = fmt.Sprintf("source %s gone for %s", src.Address, Seconds(src.SilentSeconds))
	case v.Size == 0:
		note = "empty, waits for its first source"
	}
	if src.LastError != "" {
		note += ": " + src.LastError
	}
	return note
}

func mirrorRow(v control.Volume, m control.Mirror) []string {
	return []string{
		clean(v.Name + "/" + m.ID), m.State, fmt.Sprint(m.SyncPtr),
		fmt.Sprintf("%d records", m.LagRecords), Bytes(m.LagBytes), Seconds(m.LagSeconds), Rate(m.RateBPS / 8), sent(m), mirrorNote(v, m),
	}
}

// sent is what went on the wire, of what data.
func sent(m control.Mirror) string {
	if m.DataBytes == 0 {
		return Bytes(m.SentBytes)
	}
	return Bytes(m.SentBytes) + " for " + Bytes(m.DataBytes)
}

// mirrorNote is how flush mode stands, and then the way to go while catching up, or the reason while the link is not up.
func mirrorNote(v control.Volume, m control.Mirror) string {
	flush := flushNote(m)
	switch {
	case m.Loose == "filling":
		flush = strings.TrimSuffix("loose, NOT CONSISTENT until it is filled; "+flush, "; ")
	case m.Loose != "":
		flush = strings.TrimSuffix("loose; "+flush, "; ")
	}
	if note := linkNote(v, m); note != "" && flush != "" {
		return flush + "; " + note
	} else if flush == "" {
		return note
	}
	return flush
}

func flushNote(m control.Mirror) string {
	switch m.Flush {
	case "blocked":
		return fmt.Sprintf("flush mode, BLOCKED for %s: %d flushes wait", Seconds(m.FlushSeconds), m.FlushWaiting)
	case "degraded":
		if m.State == control.StatePaused {
			return "flush mode, not waited for"
		}
		return fmt.Sprintf("flush mode, DEGRADED for %s: no flush waits", Seconds(m.FlushSeconds))
	case "":
		return ""
	}
	return "flush mode"
}

func linkNote(v control.Volume, m control.Mirror) string {
	switch {
	case m.State == control.StateSynced && m.SnapshotDeclined != "":
		return clean("does not keep " + m.SnapshotDeclined)
	case m.State == control.StateSynced, m.State == control.StatePaused:
		return ""
	case m.State != control.StateSyncing:
		return clean(m.LastError)
	case v.DurablePtr == 0:
		return ""
	}
	note := fmt.Sprintf("%s %3.0f%%", Bar(Progress(v, m), barWidth), 100*Progress(v, m))
	if m.ETASeconds > 0 {
		note += "  " + Seconds(m.ETASeconds) + " left"
	}
	return note
}

// Progress is the part of the volume's log that the mirror has, or has been sent of a jump epoch, between 0 and 1. It is not
// rounded up: 1 means all.
func Progress(v control.Volume, m control.Mirror) float64 {
	if m.SyncPtr >= v.DurablePtr {
		return 1
	}
	has, all := float64(m.SyncPtr), float64(v.DurablePtr)
	return min((has+m.EpochProgress*(all-has))/all, 0.994)
}

// Mirrors writes one table of the mirrors of all volumes, with what was set of them.
func Mirrors(w io.Writer, s control.Status) error {
	rows := [][]string{{"MIRROR", "URL", "STATE", "KEPT", "SETTINGS"}}
	for _, v := range s.Volumes {
		for _, m := range v.Mirrors {
			kept := "by --mirror"
			if m.Kept {
				kept = "yes"
			}
			settings := m.Settings
			if settings == "" {
				settings = "defaults"
			}
			rows = append(rows, []string{clean(v.Name + "/" + m.ID), clean(m.URL), m.State, kept, clean(settings)})
		}
	}
	if len(rows) == 1 {
		_, err := fmt.Fprintln(w, "no mirrors")
		return err
	}
	return table(w, rows)
}

// table aligns columns and leaves no blanks at the ends of lines.
func table(w io.Writer, rows [][]string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// clean keeps what a peer or a user wrote from moving the terminal's cursor or the table's columns.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

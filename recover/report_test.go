package recovery_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// TestHealthyReport ensures what a check counts and says of a container without damage.
func TestHealthyReport(t *testing.T) {
	p := newPatient(t)
	calls := 0
	rep, err := recovery.Check(p.d, recovery.CheckOptions{Progress: func(stage string, done, total int64) {
		if calls++; stage == "" || done <= 0 || done > total {
			t.Errorf("progress %q %d of %d", stage, done, total)
		}
	}})
	p.must(err)
	n := rep.Counts
	if !rep.OK() || rep.Total() != 0 || calls == 0 || n.Passes != 1 {
		t.Errorf("%+v, %d calls", rep, calls)
	}
	if n.Mapped != p.meta.Mapped || n.Free != p.meta.Free || n.Segments != p.meta.Segments || n.Free+n.Open+n.Sealed != n.Segments {
		t.Errorf("%+v, the checkpoint says %+v", n, p.meta)
	}
	if n.Verified == 0 || n.Verified > n.Mapped*chunk || n.Live*chunk < n.Verified {
		t.Errorf("%d bytes verified, %d chunks mapped, %d live", n.Verified, n.Mapped, n.Live)
	}
	var out strings.Builder
	p.must(rep.Print(&out))
	if !strings.Contains(out.String(), "OK: all 22 rules hold") {
		t.Errorf("%s", out.String())
	}
}

// TestQuickReadsNoData ensures that a quick check says so, sees all but the data, and reads much less.
func TestQuickReadsNoData(t *testing.T) {
	p := newPatient(t)
	p.flip(int64(p.ref(107).Phys())*chunk + 2345)
	full, err := recovery.Check(p.d, recovery.CheckOptions{})
	p.must(err)
	quick, err := recovery.Check(p.d, recovery.CheckOptions{Quick: true})
	p.must(err)
	var out strings.Builder
	p.must(quick.Print(&out))
	if full.OK() || quick.Broken[20] != 0 || quick.Counts.Verified != 0 || !strings.Contains(out.String(), "quick") {
		t.Errorf("%s", out.String())
	}
	if quick.Counts.ReadBytes*2 > full.Counts.ReadBytes {
		t.Errorf("quick read %d bytes, full %d", quick.Counts.ReadBytes, full.Counts.ReadBytes)
	}
	if quick.Counts.Batches != full.Counts.Batches || quick.Counts.Live != full.Counts.Live {
		t.Errorf("quick %+v, full %+v", quick.Counts, full.Counts)
	}
}

// TestLinesAreCapped ensures that a broken rule does not bury the others.
func TestLinesAreCapped(t *testing.T) {
	p := newPatient(t)
	for lba := range uint64(10) {
		p.flip(int64(p.ref(105+lba).Phys()) * chunk)
	}
	rep, err := recovery.Check(p.d, recovery.CheckOptions{MaxLines: 3})
	p.must(err)
	var out strings.Builder
	p.must(rep.Print(&out))
	if rep.Broken[20] != 10 || strings.Count(out.String(), "\nC20 ") != 4 || !strings.Contains(out.String(), "... and 7 more") {
		t.Errorf("%s", out.String())
	}
}

// onFile makes a container in a real file.
func onFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vol")
	if err := aodi.Create(path, aodi.CreateOptions{Size: 100 * chunk, SegmentChunks: 32}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.WriteAt(make([]byte, 10*chunk), 0, true), v.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFiles ensures that a check refuses a container that is open and keeps others from opening it, that a dump does
// neither, and that both name what is no container.
func TestFiles(t *testing.T) {
	path := onFile(t)
	opened := false
	rep, err := recovery.CheckFile(path, recovery.CheckOptions{Progress: func(string, int64, int64) {
		if _, err := disk.OpenFile(path, false); !errors.Is(err, disk.ErrInUse) {
			t.Errorf("opened during a check: %v", err)
		}
		opened = true
	}})
	if err != nil || !rep.OK() || !opened {
		t.Fatalf("%+v, %v", rep, err)
	}
	var out strings.Builder
	if used, err := recovery.DumpFile(path, recovery.DumpOptions{Segment: -1, LBA: -1}, recovery.Text(&out)); err != nil || used {
		t.Errorf("in use: %v, %v\n%s", used, err, out.String())
	}
	v, err := aodi.Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := recovery.CheckFile(path, recovery.CheckOptions{}); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("check of an open container: %v", err)
	}
	out.Reset()
	if used, err := recovery.DumpFile(path, recovery.DumpOptions{Segment: 0, LBA: 3}, recovery.Text(&out)); err != nil || !used {
		t.Errorf("in use: %v, %v\n%s", used, err, out.String())
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, checkErr := recovery.CheckFile(other, recovery.CheckOptions{})
	_, dumpErr := recovery.DumpFile(other, recovery.DumpOptions{Segment: -1, LBA: -1}, recovery.Text(&out))
	for _, err := range []error{checkErr, dumpErr} {
		if !errors.Is(err, format.ErrMagic) || !strings.Contains(err.Error(), other) {
			t.Errorf("%v", err)
		}
	}
	if _, err := recovery.CheckFile(other+"none", recovery.CheckOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestDump ensures that a dump has what somebody looks for, and nothing that was not asked for.
func TestDump(t *testing.T) {
	p := newPatient(t)
	dump := func(o recovery.DumpOptions) string {
		var out strings.Builder
		p.must(recovery.Dump(p.d, o, recovery.Text(&out)))
		return out.String()
	}
	seg, _ := p.geo.Locate(p.ref(100).Phys())
	catalog, _ := p.geo.Locate(p.meta.Catalog.Phys())
	for _, row := range []struct {
		name     string
		o        recovery.DumpOptions
		has, not []string
	}{
		{"plain", recovery.DumpOptions{Segment: -1, LBA: -1}, []string{"super chunk (byte 0)", "the newest checkpoint", "the checkpoint before",
			"closed in order", "lineage", "sync_ptr 5", "cawrm://b", "log head", "page head", " free", "roll forward to position"}, []string{"positions", "logical chunk"}},
		{"segment", recovery.DumpOptions{Segment: int(seg), LBA: -1}, []string{"positions", "commit"}, []string{"logical chunk"}},
		{"segment verbose", recovery.DumpOptions{Segment: int(seg), LBA: -1, Verbose: true}, []string{": logical chunk 10"}, nil},
		{"pages", recovery.DumpOptions{Segment: int(catalog), LBA: -1, Verbose: true}, []string{"catalog chunk 0"}, nil},
		{"chunk", recovery.DumpOptions{Segment: -1, LBA: 100}, []string{"logical chunk 100", "page of level 1", "matches", "inverse entry"}, nil},
		{"zeroes", recovery.DumpOptions{Segment: -1, LBA: 90}, []string{"zeroes"}, nil},
		{"hole", recovery.DumpOptions{Segment: -1, LBA: 80}, []string{"none"}, nil},
		{"beyond the end", recovery.DumpOptions{Segment: -1, LBA: 5000}, []string{"beyond the end"}, nil},
	} {
		got := dump(row.o)
		for _, s := range row.has {
			if !strings.Contains(got, s) {
				t.Errorf("%s: lacks %q:\n%s", row.name, s, got)
			}
		}
		for _, s := range row.not {
			if strings.Contains(got, s) {
				t.Errorf("%s: has %q:\n%s", row.name, s, got)
			}
		}
	}
	p.append(func(h *format.BatchHeader, _ []byte) { h.Entries[0].LBA = 100 })
	if got := dump(recovery.DumpOptions{Segment: -1, LBA: 100}); !strings.Contains(got, "1 batches with 1 records") || !strings.Contains(got, "behind the checkpoint") {
		t.Errorf("a batch behind the checkpoint:\n%s", got)
	}
	var out strings.Builder
	if err := recovery.Dump(p.d, recovery.DumpOptions{Segment: 1 << 20, LBA: -1}, recovery.Text(&out)); err == nil {
		t.Error("a segment that does not exist was dumped")
	}
}

// TestDamageAnywhere ensures that neither check nor dump falls over damage, wherever it is, and that no bit that is
// in use can flip unseen.
func TestDamageAnywhere(t *testing.T) {
	p := newPatient(t)
	rng := newRand(seedOf(t))
	used := p.usedChunks()
	for range 300 {
		off := used[rng.IntN(len(used))] + int64(rng.IntN(chunk))
		p.flip(off)
		rep, err := recovery.Check(p.d, recovery.CheckOptions{})
		if err != nil || rep.OK() {
			t.Errorf("bit 6 of byte %d is flipped: %v", off, err)
		}
		var out strings.Builder
		seg, _ := p.geo.Locate(format.Phys(off / chunk))
		if err := recovery.Dump(p.d, recovery.DumpOptions{Segment: int(seg), LBA: rng.Int64N(2000), Verbose: true}, recovery.Text(&out)); err != nil {
			t.Error(err)
		}
		p.flip(off)
	}
	mustHold(t, p.d, "all bits flipped back")
}

// usedChunks are the offsets of mapped data, of headers and of summaries of sealed segments.
func (p *patient) usedChunks() (offs []int64) {
	for lba := range uint64(2000) {
		if r := p.ref(lba); r.HasData() {
			offs = append(offs, int64(r.Phys())*chunk)
		}
	}
	for seg := range uint32(p.meta.Segments) {
		if r := p.row(seg); r.State != format.SegmentSealed {
			continue
		}
		offs = append(offs, p.off(seg, p.geo.Slots()), p.off(seg, 0))
	}
	offs = append(offs, int64(p.meta.MapRoot.Phys())*chunk, int64(p.meta.SegRoot.Phys())*chunk)
	return offs
}

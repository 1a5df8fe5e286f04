package recovery_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// rescue opens what is left of a disk and returns what it shows and says. The disk must not change.
func rescue(t *testing.T, d disk.Disk) (shown [][]byte, found string) {
	t.Helper()
	before := snapshotOf(t, d)
	over := disk.NewOverlay(readOnly{t, d})
	res, err := recovery.Rescue(over)
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, over, quiet)
	shown = contentOf(v)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(before, snapshotOf(t, d)) {
		t.Error("the container was changed")
	}
	return shown, said(res)
}

func said(r recovery.Rescued) string {
	return "found " + strings.Join(r.Found, "\nfound ") + "\nlost " + strings.Join(r.Lost, "\nlost ")
}

// readOnly fails the test when something is written.
type readOnly struct {
	t *testing.T
	disk.Disk
}

func (r readOnly) refuse() error { r.t.Error("a rescue writes"); return syscall.EROFS }

func (r readOnly) WriteAt([]byte, int64) error     { return r.refuse() }
func (r readOnly) WriteCached([]byte, int64) error { return r.refuse() }
func (r readOnly) Sync() error                     { return r.refuse() }
func (r readOnly) Grow(int64) error                { return r.refuse() }
func (r readOnly) Reserve(int64, int64) error      { return r.refuse() }
func (r readOnly) Zero(int64, int64) error         { return r.refuse() }
func (r readOnly) Punch(int64, int64) error        { return r.refuse() }

// Whatever a repair mends, a rescue shows whole.
func TestRescueShowsWhatCanBeRepaired(t *testing.T) {
	for _, c := range repairable {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			want := content(t, p.d)
			c.damage(p)
			got, _ := rescue(t, p.d)
			sameContent(t, "rescued", got, want)
		})
	}
}

// What is lost fails to be read and is said; everything else is shown.
func TestRescueLosesOnlyWhatIsDamaged(t *testing.T) {
	leaf := func(n uint64) (lost []uint64) {
		for i := range uint64(512) {
			lost = append(lost, n*512+i)
		}
		return lost
	}
	for _, c := range []struct {
		name   string
		damage func(p *patient)
		lost   []uint64
		say    string
	}{
		{"nothing", func(*patient) {}, nil, "found checkpoint: "},
		{"data", func(p *patient) { p.flip(int64(p.ref(105).Phys())*chunk + 9) }, []uint64{105}, ""},
		{"a leaf, and the beginning of the log", func(p *patient) {
			p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 2) + 5)
			p.flip(p.off(0, 0) + 100)
		}, leaf(2), "reads of logical bytes 4194304 to 6291456 fail"},
		{"a header in the head of the log", func(p *patient) { p.flip(p.off(p.meta.Log.Segment, 0) + 50) }, nil, ""},
		{"a reserved segment that is in use", func(p *patient) {
			p.setMeta(func(m *format.Meta) { m.Log.Next = p.segment(sealedLog) })
		}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			want := content(t, p.d)
			c.damage(p)
			got, found := rescue(t, p.d)
			sameContent(t, "rescued", got, want, c.lost...)
			if !strings.Contains(found, c.say) {
				t.Errorf("it says\n%s\nwithout %q", found, c.say)
			}
		})
	}
}

// A place that the disk fails to read is like one that is damaged, wherever it is.
func TestRescueOfADiskThatFailsToRead(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	lba := uint64(0) // one whose data are far from the end of the log: there a batch must be whole to count
	for lba = range uint64(2000) {
		if r := p.ref(lba); r.HasData() && r.Phys() < p.geo.Phys(4, 0) {
			break
		}
	}
	data, page, meta := int64(p.ref(lba).Phys())*chunk, p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 1), int64(1+p.meta.Seq%2)*chunk
	bad := &disk.Faulty{Disk: p.d}
	bad.Rule = func(op disk.Op, off int64, n int) error {
		for _, at := range []int64{data, page, meta} {
			if op == disk.OpRead && off <= at && at < off+int64(n) {
				return syscall.EIO
			}
		}
		return nil
	}
	over := disk.NewOverlay(bad)
	res, err := recovery.Rescue(over)
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, over, quiet)
	sameContent(t, "rescued", contentOf(v), want, lba)
	p.must(v.Close())
	if all := said(res); strings.Count(all, "cannot be read: input/output error") < 2 {
		t.Errorf("it says\n%s", all)
	}
}

// A container that was cut off shows what is left of it.
func TestRescueOfATruncatedContainer(t *testing.T) {
	p := newPatient(t)
	want := content(t, p.d)
	whole := snapshotOf(t, p.d)
	cut := newDisk(t)
	p.must(cut.WriteCached(whole[:p.off(uint32(p.meta.Segments)*2/3, 0)], 0))
	over := disk.NewOverlay(cut)
	res, err := recovery.Rescue(over)
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, over, quiet)
	shown := 0
	for i, b := range contentOf(v) {
		if b != nil && bytes.Equal(b, want[i]) {
			shown++
		} else if b != nil {
			t.Errorf("chunk %d reads as %.20q, not %.20q", i, b, want[i])
		}
	}
	p.must(v.Close())
	if !strings.Contains(said(res), "lost the container is cut off") {
		t.Errorf("it says %s", said(res))
	}
	t.Logf("%d of %d chunks are shown", shown, len(want))
}

// A checkpoint that is lost with an incarnation loses nothing.
func TestRescueAcrossALostCheckpoint(t *testing.T) {
	d, want := lostCheckpoint(t)
	got, found := rescue(t, d)
	sameContent(t, "rescued", got, want)
	if !strings.Contains(found, "the log goes on across them") {
		t.Errorf("it says\n%s", found)
	}
}

// A batch that is damaged behind the checkpoint ends the log there, and it is said that others stand behind it.
func TestRescueOfADamagedTail(t *testing.T) {
	d := newDisk(t)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1000 * chunk, SegmentChunks: 512}); err != nil {
		t.Fatal(err)
	}
	v := open(t, d, quiet)
	b := make([]byte, chunk)
	for i := range int64(20) {
		b[0] = byte(1 + i)
		if err := v.WriteAt(b, i*chunk, true); err != nil {
			t.Fatal(err)
		}
	}
	after := d.Crash(newRand(1))
	t.Cleanup(after.Free)
	_ = v.Close()
	p := &patient{t: t, d: after}
	p.load()
	p.flip(p.off(p.meta.Log.Segment, 20) + 60) // each write is a header and a chunk: the header of the eleventh
	got, found := rescue(t, after)
	for i := range 20 {
		if want := byte(1 + i); i < 10 && got[i][0] != want || i >= 10 && got[i][0] != 0 {
			t.Errorf("chunk %d holds %d", i, got[i][0])
		}
	}
	if !strings.Contains(found, "9 batches stand behind its end") {
		t.Errorf("it says\n%s", found)
	}
}

// Where a page of the map is lost and the log cannot tell what was there, what the log says behind the checkpoint is shown
// all the same, and beside it nothing.
func TestRescueOfALeafThatTheLogGoesOnIn(t *testing.T) {
	d := newDisk(t)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1024 * chunk, SegmentChunks: 512}); err != nil {
		t.Fatal(err)
	}
	v := open(t, d, quiet)
	b := bytes.Repeat([]byte{1}, 1024*chunk)
	if err := v.WriteAt(b, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := v.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteAt(bytes.Repeat([]byte{2}, 8*chunk), 100*chunk, true); err != nil {
		t.Fatal(err)
	}
	crashed := d.Crash(newRand(1))
	t.Cleanup(crashed.Free)
	_ = v.Close()
	for _, level := range []string{"leaf", "root"} {
		p := &patient{t: t, d: crashed}
		p.load()
		end := 512
		if level == "leaf" {
			p.flip(p.off(0, 0) + 100) // the first batch of the log
			p.flip(p.pageAt(p.meta.MapRoot, p.meta.MapHeight, 0) + 5)
		} else {
			p.flip(int64(p.meta.MapRoot.Phys())*chunk + 5)
			end = 1024
		}
		got, _ := rescue(t, crashed)
		for i, c := range got {
			switch {
			case i >= 100 && i < 108:
				if c == nil || c[0] != 2 {
					t.Fatalf("%s: chunk %d, which was written behind the checkpoint, is not shown", level, i)
				}
			case i < end && c != nil:
				t.Fatalf("%s: chunk %d is shown, and nothing tells what it held", level, i)
			case i >= end && (c == nil || c[0] != 1):
				t.Fatalf("%s: chunk %d is not shown", level, i)
			}
		}
	}
}

package plan

import (
	"math"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
)

// TestOver: the lag of writes whose answer is known. 100 bytes come at once, then nothing for 9 s: a line of 10 a second is 9 s
// behind after the first second, one of 100 never.
func TestOver(t *testing.T) {
	w := Writes{From: time.Unix(1000, 0), To: time.Unix(1009, 0), Bytes: 100, Seconds: map[int64]int64{1000: 100}}
	f := w.Over(10)
	if f.MaxBytes != 90 || f.MaxSeconds != 9 || !f.Keeps || math.Abs(f.BehindShare-0.8) > 1e-9 {
		t.Errorf("%+v", f)
	}
	if f := w.Over(100); f.MaxBytes != 0 || f.BehindShare != 0 || math.Abs(f.Outage-3600.0*10/90) > 1e-9 {
		t.Errorf("%+v", f)
	}
	if f := w.Over(9); f.Keeps || f.Outage != -1 {
		t.Errorf("%+v", f)
	}
	if r := w.Least(9); r != 10 {
		t.Errorf("%d bytes a second keep a lag of 9 s", r)
	}
	if d := w.PerDay(); d != 864000 {
		t.Errorf("%d a day", d)
	}
}

// TestLongSpan: a log of years, or one whose clock was set, costs bounded memory.
func TestLongSpan(t *testing.T) {
	w := Writes{From: time.Unix(0, 0), To: time.Unix(1<<33, 0), Bytes: 1 << 20, Seconds: map[int64]int64{-5: 1, 0: 1 << 20, 1 << 40: 1}}
	if f := w.Over(1); f.MaxBytes > 1<<20 {
		t.Errorf("%+v", f)
	}
}

// TestRead: what a volume's log tells is what was written, with each chunk once in Unique.
func TestRead(t *testing.T) {
	d := disk.NewMemory(1 << 28)
	defer d.Free()
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	v, err := aodi.OpenOn(d, aodi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := Make(v, nil); err == nil {
		t.Error("a plan of nothing")
	}
	for i := range int64(30) {
		if err := v.WriteAt(make([]byte, 4096), i%10*4096, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	w, err := Read(v)
	if err != nil || w.Bytes != 30*4096 || w.Unique != 10*4096 || !w.Complete {
		t.Errorf("%+v, %v", w, err)
	}
}

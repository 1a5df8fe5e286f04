package peers

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cawrm/bench/report"
	"cawrm/wan"
)

// TestDRBDIsSyncedWhenItSaysAll ensures what of /proc/drbd counts: both disks up to date, connected, and nothing out of sync on device 0.
func TestDRBDIsSyncedWhenItSaysAll(t *testing.T) {
	const text = `version: 8.4.11 (api:1/proto:86-101)
srcversion: 0A1B2C
 0: cs:%CS ro:Primary/Secondary ds:%DS C r-----
    ns:65536 nr:0 dw:8192 dr:65536 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:d oos:%OOS
 1: cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate C r-----
    ns:0 nr:65536 dw:65536 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:d oos:0
`
	for _, c := range []struct {
		cs, ds, oos  string
		want, failed bool
	}{
		{"Connected", "UpToDate/UpToDate", "0", true, false},
		{"Connected", "UpToDate/UpToDate", "4", false, false},
		{"SyncSource", "UpToDate/Inconsistent", "4096", false, false},
		{"WFConnection", "UpToDate/DUnknown", "0", false, false},
		{"Connected", "UpToDate/Inconsistent", "0", false, false},
		{"StandAlone", "UpToDate/DUnknown", "0", false, true},
	} {
		got, err := drbdSynced(strings.NewReplacer("%CS", c.cs, "%DS", c.ds, "%OOS", c.oos).Replace(text))
		if got != c.want || (err != nil) != c.failed {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	if _, err := drbdSynced("version: 8.4.11\n"); err == nil {
		t.Error("a text without a device passes")
	}
}

// TestMachinesLines ensures that results are told from what else a machine prints, and that a turn without results is none.
func TestMachinesLines(t *testing.T) {
	var did []string
	lines, others := gather(strings.NewReader(`{"congestion":"cubic","kernel":"6.1"}
mdadm: a complaint
{"doing":"outage"}
{"what":"writer, IOPS","value":40}
{}
{"what":"share","value":0}
`), func(what string) { did = append(did, what) })
	if len(did) != 1 || did[0] != "outage" || others != "mdadm: a complaint\n{}\n" {
		t.Errorf("%q, %q", did, others)
	}
	e := &report.Experiment{}
	for range 3 {
		if err := take(e, "cawrm (vm)", Order{Seconds: time.Second}, lines); err != nil {
			t.Fatal(err)
		}
	}
	if v, ok := e.Get("cawrm", "writer, IOPS"); !ok || v != 40 || e.Rounds() != 3 {
		t.Errorf("%g, %v, %d rounds", v, ok, e.Rounds())
	}
	if v, ok := e.Get("cawrm", "share"); !ok || v != 0 {
		t.Errorf("a value of 0 is lost: %g, %v", v, ok)
	}
	if e.Congestion != "cubic" || !strings.Contains(e.Note, "Linux 6.1") {
		t.Errorf("%q, %q", e.Congestion, e.Note)
	}
	if err := take(e, "DRBD A", Order{}, []Line{{Lacks: "the kernel's module drbd"}}); !errors.As(err, new(lacks)) {
		t.Errorf("a machine without the module: %v", err)
	}
	if err := take(e, "DRBD A", Order{}, lines[:2]); err == nil || errors.As(err, new(lacks)) {
		t.Errorf("a machine that measured nothing: %v", err)
	}
}

// TestLineOfTheMachineSaysWhatItCannot ensures that a profile whose script asks for more than silence is refused.
func TestLineOfTheMachineSaysWhatItCannot(t *testing.T) {
	flapping, err := wan.Lookup("flapping")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range flapping.Script {
		if silent, err := silences(s); err != nil || silent == (s.Do == "heal") {
			t.Errorf("%s: %v, %v", s.Do, silent, err)
		}
	}
	if _, err := silences(wan.Step{Do: "rate 1mbit"}); err == nil {
		t.Error("a step that changes the rate passes")
	}
}

// TestAfterIsTheWholeHistory ensures what a target is compared with to see whether it was behind at all.
func TestAfterIsTheWholeHistory(t *testing.T) {
	c := &client{area: 3, history: []int64{2, 0, 0, 1}}
	since := state{[]uint64{2, 0, 1}, 2}
	if got := c.after(since); got[0] != 3 || got[1] != 4 || got[2] != 1 {
		t.Errorf("%v", got)
	}
	if ok, err := c.once(since, c.after(since)); !ok || err != nil {
		t.Errorf("the end is no state of the history: %v, %v", ok, err)
	}
	if _, err := c.once(since, []uint64{5, 0, 1}); err == nil {
		t.Error("a write that was never made passes")
	}
}

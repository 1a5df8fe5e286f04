package lab

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestLines ensures that netem, the TUN forwarder and the relay all make a line of a profile in a kernel that has them, and that
// none is quicker than the profile says. What was measured is printed; how fast they are there is the emulated processor's.
func TestLines(t *testing.T) {
	need(t, "netem was not compared with the other ways to make a line")
	m := newMachine(t, "line.sh", 300*time.Second)
	for _, mod := range []string{"sch_netem", "veth", "tun", "tcp_bbr"} {
		m.with("--mod", mod)
	}
	m.start("wan")
	m.finish()
	seen := 0
	for line := range strings.Lines(m.out.String()) {
		text, ok := strings.CutPrefix(line, "JSON ")
		if !ok {
			continue
		}
		mode, text, _ := strings.Cut(text, " ")
		var rows []struct {
			Name, Mode, Congestion string
			RTT                    float64 `json:"rtt_seconds"`
			Rate                   float64 `json:"rate_bps"`
			MeasuredRTT            float64 `json:"measured_rtt_seconds"`
			MeasuredRate           float64 `json:"measured_rate_bps"`
		}
		if err := json.Unmarshal([]byte(text), &rows); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for _, r := range rows {
			seen++
			t.Logf("%-6s %-6s asked %5.1f ms %6.1f Mbit/s, measured %6.1f ms %6.1f Mbit/s with %s", r.Name, mode,
				1e3*r.RTT, r.Rate/1e6, 1e3*r.MeasuredRTT, r.MeasuredRate/1e6, r.Congestion)
			if r.Mode != mode || r.Congestion == "" || r.MeasuredRTT < r.RTT {
				t.Errorf("%s: %+v", mode, r)
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d lines were measured, want one in each of 3 ways", seen)
	}
}

package main

import (
	"cmp"
	"slices"

	recovery "cawrm/recover"
)

// checkReport is the JSON of check.
type checkReport struct {
	Container  string       `json:"container"`
	OK         bool         `json:"ok"` // every rule that was looked at holds
	Quick      bool         `json:"quick"`
	Checkpoint uint64       `json:"checkpoint"`  // its number
	Position   uint64       `json:"position"`    // of the checkpoint
	DurablePtr uint64       `json:"durable_ptr"` // end of what rolls forward from there
	Size       int64        `json:"size"`        // logical, bytes
	Segments   uint64       `json:"segments"`
	Free       uint64       `json:"segments_free"`
	Live       uint64       `json:"chunks_live"`   // that something refers to, pages included
	Mapped     uint64       `json:"chunks_mapped"` // of the volume that are not holes
	Verified   uint64       `json:"verified_bytes"`
	Read       uint64       `json:"read_bytes"`
	Seconds    float64      `json:"seconds"`
	Notes      []string     `json:"notes"`
	Broken     []brokenRule `json:"broken"`     // rules that do not hold
	Violations []violation  `json:"violations"` // where, at most some lines of each rule
}

type brokenRule struct {
	Rule  string `json:"rule"`
	Count int    `json:"count"`
}

type violation struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

func reportOf(r *recovery.Report) *checkReport {
	m, n := &r.Container.Meta, &r.Counts
	a := &checkReport{
		Container: r.Name, OK: r.OK(), Quick: r.Quick, Checkpoint: m.Seq, Position: uint64(m.Position), DurablePtr: uint64(r.RolledEnd), Size: m.Size,
		Segments: n.Segments, Free: n.Free, Live: n.Live, Mapped: n.Mapped, Verified: n.Verified, Read: n.ReadBytes, Seconds: r.Duration.Seconds(),
		Notes: append([]string{}, r.Notes...), Broken: []brokenRule{}, Violations: []violation{},
	}
	for rule, k := range r.Broken {
		a.Broken = append(a.Broken, brokenRule{rule.String(), k})
	}
	slices.SortFunc(a.Broken, func(x, y brokenRule) int { return cmp.Compare(x.Rule, y.Rule) })
	for _, v := range r.Violations {
		a.Violations = append(a.Violations, violation{v.Rule.String(), v.Text})
	}
	return a
}

// repairReport is the JSON of check --repair.
type repairReport struct {
	OK       bool         `json:"ok"`              // every rule holds now
	Changed  bool         `json:"changed"`         // the container was
	Error    string       `json:"error,omitempty"` // why no check could be made before
	Repaired []string     `json:"repaired"`
	Remains  []string     `json:"remains"`         // what could not be derived, and why
	Check    *checkReport `json:"check,omitempty"` // as it is now
}

func repairOf(r *recovery.Repaired) repairReport {
	a := repairReport{OK: r.OK(), Changed: r.After != nil, Remains: append([]string{}, r.Refused...)}
	a.Repaired = append(append([]string{}, r.Mended...), r.Gone()...)
	if r.Why != nil {
		a.Error = r.Why.Error()
	}
	if last := cmp.Or(r.After, r.Before); last != nil {
		a.Check = reportOf(last)
	}
	return a
}

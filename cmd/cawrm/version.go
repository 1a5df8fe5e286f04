package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// version and commit are set by the build: -ldflags "-X main.version=1.2.3 -X main.commit=...". Else what the go command noted
// stands for them.
var version, commit = "", ""

// versions is what version --json prints.
type versions struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Format  int    `json:"container_format"`
	Wire    int    `json:"wire_protocol"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

func thisVersion() versions {
	v := versions{Format: int(format.Version), Wire: int(wire.Version), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	v.Version, v.Commit = buildInfo()
	return v
}

func (v versions) String() string {
	return fmt.Sprintf("cawrm %s, commit %s (container format %d, wire protocol %d, %s %s)", v.Version, v.Commit, v.Format, v.Wire, v.Go, v.System)
}

func newVersion() *cobra.Command {
	var asJSON jsonFlag
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit, container format and wire protocol",
		Example: "  cawrm version\n  cawrm version --json",
		Args:    maxArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			v := thisVersion()
			return asJSON.say(c, v, "%s\n", v)
		},
	}
	asJSON.add(c)
	return c
}

// build says in one word what was built.
func build() string {
	v, c := buildInfo()
	if v == "unreleased" {
		return c
	}
	return v
}

// buildInfo says what was built.
func buildInfo() (v, c string) {
	v, c = version, commit
	if v == "" {
		v = "unreleased"
	}
	if c != "" {
		return v, c
	}
	c = "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, c
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			c = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			c += " with changes"
		}
	}
	return v, c
}

// Package arrows holds the import graph: which package of this module may know which. A new arrow is a line here.
package arrows

import (
	"os/exec"
	"strings"
	"testing"
)

// allowed lists, for each package with a rule, the packages of this module that its code (not its tests) may import.
var allowed = map[string]string{
	"cawrm/aodi/format": "",
	"cawrm/aodi/disk":   "",
	"cawrm/recover":     "cawrm/aodi/format cawrm/aodi/disk",
	"cawrm/aodi":        "cawrm/aodi/format cawrm/aodi/disk cawrm/recover",
	"cawrm/cawrm/wire":  "cawrm/aodi/format",
	"cawrm/cawrm/cert":  "",
	"cawrm/cawrm/nbd":   "",
	"cawrm/cawrm/delta": "cawrm/aodi/format",
	"cawrm/cawrm":       "cawrm/aodi cawrm/aodi/format cawrm/cawrm/delta cawrm/cawrm/nbd cawrm/cawrm/wire",
	"cawrm/gc":          "cawrm/aodi cawrm/aodi/format",
	"cawrm/nbdsrv":      "",
	"cawrm/wan":         "",
}

// forbidden are packages that nothing in the module may depend on, and why.
var forbidden = map[string]string{
	"github.com/pojntfx/go-nbd/pkg/client": "it pulls in a GPL-3.0 package",
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, out)
	}
	return strings.Fields(string(out))
}

// TestImportsPointOneWay ensures that each package knows only what its place in the map lets it know.
func TestImportsPointOneWay(t *testing.T) {
	for pkg, may := range allowed {
		for _, dep := range list(t, "-f", `{{join .Imports " "}}`, pkg) {
			if strings.HasPrefix(dep, "cawrm/") && !strings.Contains(" "+may+" ", " "+dep+" ") {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}

// TestForbiddenPackages ensures that none of them comes in by any way.
func TestForbiddenPackages(t *testing.T) {
	for _, dep := range list(t, "-deps", "cawrm/...") {
		if why, bad := forbidden[dep]; bad {
			t.Errorf("the module depends on %s: %s", dep, why)
		}
	}
}

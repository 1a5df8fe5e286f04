// Package build finds or builds the cawrm binary for whole-system tests.
package build

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Root is the directory of this module.
func Root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("the working directory is in no Go module")
	}
	return filepath.Dir(mod), nil
}

// Binary returns the path of a cawrm binary: $CAWRM_BIN if that is set, else
// one built from this tree into dir, static as `make build` does.
func Binary(dir string) (string, error) {
	if bin := os.Getenv("CAWRM_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "cawrm")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/cawrm")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/cawrm: %w\n%s", err, bytes.TrimSpace(out))
	}
	return bin, nil
}

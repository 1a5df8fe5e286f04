#!/bin/bash
# Runs `go test -v` and leaves out the lines of tests that start or pass, so
# that what was skipped, and why, stands out. The exit status is go's.
set -o pipefail
"$@" 2>&1 | grep -v --line-buffered -E '^(=== (RUN|PAUSE|CONT|NAME)|PASS$| *--- PASS)'
exit "${PIPESTATUS[0]}"

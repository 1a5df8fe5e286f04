# make build         bin/cawrm, one static binary
# make test          installs what is missing (as root, with apt-get), then runs every test
# make sim-mutants   planted faults, each of which the simulation must find
# make sim           random histories of a whole system; SEED=n RUNS=n replays
# make demo          two sites, a slow link that is cut and healed, under a minute
# make bench-nbd     fio against cawrm, nbdkit and qemu-nbd
# make benchmarks    BENCHMARKS.md, from bench/results
# make soak HOURS=1  two sites for hours, with kills and cuts; nothing may grow
# make check-format  gofmt
# make fuzz          every fuzz target, FUZZTIME each (3m), one after the other
# make package       .deb, .rpm and tarball into dist
# make test-package  packages built twice, installed, upgraded in use and removed in a clean root
# make docs          docs/reference.md, from the code
# make clean

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# How often the crash test kills the daemons; 200 by hand.
CAWRM_KILL_CYCLES ?= 15

# How long make test simulates, in seconds.
CAWRM_SIM_SECONDS ?= 180

# Arguments of bench-nbd and demo: make bench-nbd ARGS='--rounds 1'
ARGS ?=

# Of soak; may be fractional.
HOURS ?= 1

.PHONY: build test setup check-format vet unit simulate whole sim sim-mutants demo bench-nbd bench-gc bench-snapshots soak fuzz package test-package docs check-docs clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o bin/cawrm ./cmd/cawrm

test: setup check-format vet build check-docs unit simulate whole test-package

setup:
	bench/setup.sh

check-format:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

# bench/quiet.sh leaves out the lines of tests that passed; skipped ones stay.
unit:
	bench/quiet.sh $(GO) test -race -v -timeout 10m $$($(GO) list ./... | grep -v -e '/bench/e2e$$' -e '/bench/lab$$')
	bench/quiet.sh $(GO) test -v -run 'TestEveryIO$$' ./aodi # every I/O; under the race detector only a few

# Fresh seeds, as many as fit, and all that ever failed. Without the race detector, which is ten times slower: unit has
# run some with it.
simulate:
	$(GO) run ./bench/sim/run -test TestSeedsThatFailed -p 1
	$(GO) run ./bench/sim/run -seconds $(CAWRM_SIM_SECONDS) -v

# From SEED on, RUNS histories; a fresh seed when none is given.
sim:
	$(GO) run ./bench/sim/run -seed $(or $(SEED),0) -runs $(or $(RUNS),200) -v

# Plants faults, one at a time, and lets the simulation find them.
sim-mutants:
	$(GO) run ./bench/sim/mutants $(ARGS)

# The built binary as a whole: third-party clients, two sites, SIGKILL, and a
# real kernel in a virtual machine. One package after the other: they are
# sensitive to load, and machines have two cores.
whole: build
	CAWRM_BIN=$(CURDIR)/bin/cawrm CAWRM_KILL_CYCLES=$(CAWRM_KILL_CYCLES) \
		bench/quiet.sh $(GO) test -v -count=1 -p 1 -timeout 20m ./bench/lab ./bench/e2e

demo: build
	$(GO) run ./bench/demo --bin bin/cawrm $(ARGS)

bench-nbd: build
	$(GO) run ./bench/nbd --bin bin/cawrm $(ARGS)

benchmarks:
	$(GO) run ./bench/benchmarks

soak: build
	$(GO) run ./bench/soak --bin bin/cawrm --hours $(HOURS) $(ARGS)

# In make test the corpora run as ordinary tests.
FUZZTIME ?= 3m

fuzz:
	@set -e; for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -h -o '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | cut -d' ' -f2); do \
			echo "== $$p $$f"; nice $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 200x -parallel 1 $$p; \
		done; done

package:
	cmd/packages/build.sh dist

test-package:
	CAWRM_PACKAGE_TEST=1 bench/quiet.sh $(GO) test -v -count=1 -timeout 10m -run TestPackages ./cmd/packages

docs: build
	bin/cawrm manual reference >docs/reference.md

# The reference in the docs is what the code says.
check-docs: build
	@bin/cawrm manual reference | diff -q - docs/reference.md >/dev/null || { echo "docs/reference.md is older than the code: make docs"; exit 1; }

clean:
	rm -rf bin dist tmp

bench-gc: ## what cleaning costs: write amplification, and the longest write
	$(GO) run ./bench/gc $(ARGS)

bench-snapshots: ## what snapshots cost a writer
	$(GO) run ./bench/snapshots $(ARGS)

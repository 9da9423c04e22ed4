# `make help` lists what there is. Everything runs in each module of the
# repository: the root, and examples and bench where they exist.

MODULES := . $(patsubst %/go.mod,%,$(wildcard examples/go.mod bench/go.mod))

# Packages start servers of their own: more at a time than this and a machine of
# two cores measures its own load.
PARALLEL  ?= 2
TIMEOUT   ?= 10m
FUZZTIME  ?= 20s
BENCH     ?= .
BENCHTIME ?= 1s
OPS       ?= 20000

# The linter is built once for each version and shared by all clones.
LINT_VERSION := v2.15.0
LINT_DIR     := $(firstword $(subst :, ,$(shell go env GOPATH)))/tools/golangci-lint-$(LINT_VERSION)
LINT         := $(LINT_DIR)/golangci-lint

# each runs a command in every module and stops at the first that fails.
each = @set -e; for module in $(MODULES); do echo "== $(1) (in $$module)"; (cd $$module && $(1)); done

.DEFAULT_GOAL := help
.PHONY: help setup servers test lint bench fuzz cover histories soak model trails

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PARALLEL=$(PARALLEL) TIMEOUT=$(TIMEOUT) FUZZTIME=$(FUZZTIME) BENCH=$(BENCH) BENCHTIME=$(BENCHTIME) OPS=$(OPS) can be set."
	@echo "  With CI=1 a missing server is a failure instead of a skipped test."

setup: servers $(LINT) ## install what is missing: C compiler, Postgres, Redis, the linter

servers:
	@.ci/setup

$(LINT):
	@echo "building golangci-lint $(LINT_VERSION), once"
	@GOBIN=$(LINT_DIR) GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

test: servers ## all tests with the race detector, on real servers
	$(call each,CGO_ENABLED=1 go test -race -p $(PARALLEL) -timeout $(TIMEOUT) ./...)

lint: $(LINT) ## go vet and golangci-lint
	$(call each,go vet ./...)
	$(call each,$(LINT) run --config $(CURDIR)/.golangci.yml ./...)

bench: servers ## Go benchmarks with allocations, one package at a time
	$(call each,go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -p 1 -timeout 1h ./...)

# What a Cluster has of its own, and what is told by its messages.
SHARDS := reshard,hand-over,kill-shard,restore-shard,freeze-shard,deafen,schema

histories: servers ## check histories under faults, and that broken rules are found (OPS read-backs, operations)
	@go build -C bench -o "$(CURDIR)/.histories/" ./histories
	@go build -C bench -tags faulthooks -o "$(CURDIR)/.histories/unruly" ./histories
	@.histories/histories -area routing -ops $(OPS)
	@.histories/histories -area cache -ops $(OPS)
	@.histories/histories -area cache -redis cluster -faults $(SHARDS) -ops $(OPS)
	@bench/histories/unruly "$(CURDIR)/.histories/unruly"

soak: servers ## limits under load while Redis is hung, killed and failed over: waits, windows, time to recover
	@go run -C bench ./soak -area limits

model: ## check the cache's protocol exhaustively with spin, and that each safeguard is needed
	@cachehook/model/check

trails: ## write spin's ways to each break anew, for the test that replays them; minutes
	@cachehook/model/check cachehook/testdata/trails

fuzz: ## each fuzz target for FUZZTIME
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target ($$(dirname "$$file"))"; \
			go test -C "$$(dirname "$$file")" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .; \
		done; \
	done

cover: servers ## coverage of the root module: coverage.out and the total
	@go test -p $(PARALLEL) -timeout $(TIMEOUT) -coverpkg=./... -coverprofile=coverage.out ./...
	@go tool cover -func=coverage.out | tail -n 1

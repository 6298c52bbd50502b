# Two targets matter to a new user: `make run` and `make test`.

GO      ?= go
BIN     := bin/flotilla
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.commit=$(VERSION)

# What make run sends: a directory or a file.
FILE ?= $(shell $(GO) env GOROOT)/src

# Packages whose goroutines share memory.
RACE := ./broker/... ./client/... ./internal/netsim/... ./internal/vfs/... ./log/... ./partition/... ./replication/... ./wire/...

STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build run check test race kill mutants fuzz bench fmt clean

build: ## the binary, bin/flotilla
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/flotilla

run: build ## real data through a real server that is killed on the way
	$(GO) build -trimpath -o bin/demo ./cmd/demo
	bin/demo -binary $(BIN) -file '$(FILE)'

check: ## quick: format, vet, staticcheck, layering, unit and scenario tests, race
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'gofmt: the files above need formatting'; exit 1; }
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -short ./...
	$(GO) test -short -race $(RACE)

test: ## everything that needs Go alone: about 20 minutes on two cores
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 30m ./...

race: ## the concurrent packages under the race detector
	$(GO) test -count=1 -race -timeout 30m $(RACE)

mutants: ## takes each guard away and sees its test fail
	$(GO) run ./internal/mutants

clean:
	rm -rf bin

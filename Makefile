# Two targets matter to a new user: `make run` and `make test`.

GO      ?= go
BIN     := bin/flotilla
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.commit=$(VERSION)

# What make run sends: a directory or a file.
FILE ?= $(shell $(GO) env GOROOT)/src

# Packages whose goroutines share memory.
RACE := ./bench/... ./broker/... ./client/... ./internal/admin/... ./internal/delivery/... ./internal/netsim/... ./internal/node/... ./internal/vfs/... ./kafka/... ./log/... ./partition/... ./replication/... ./wire/...

# One processor for a test's goroutines: in a bubble of testing/synctest all timers
# share one context of the race detector, which breaks when two threads are in it
# (golang/go#78156: SIGSEGV or "CHECK failed" in ThreadSanitizer). What is a race is
# told by what happens before what, for which one processor does.
RACEFLAGS := -race -cpu 1

STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build run check lint short test test-clients test-kgo test-librdkafka test-cluster race race-short race-all kill mutants soak soak-sim sim-bugs fuzz bench bench-kafka bench-cluster bench-failover bench-groups fmt clean kafka-jars record-kafka test-differential

build: ## the binary, bin/flotilla
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/flotilla

run: build ## real data through a real server that is killed on the way
	$(GO) build -trimpath -o bin/demo ./cmd/demo
	bin/demo -binary $(BIN) -file '$(FILE)'

check: lint short race-short ## quick: format, vet, staticcheck, layering, unit and scenario tests, race

lint: ## format, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'gofmt: the files above need formatting'; exit 1; }
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	$(STATICCHECK) -tags 'clients cluster' ./...

short: ## what is quick of all tests
	$(GO) test -short ./...

race-short: ## what is quick of the concurrent packages' tests, under the race detector
	$(GO) test -short $(RACEFLAGS) $(RACE)

test: ## everything that needs Go alone: about 20 minutes on two cores
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 45m ./...
	$(GO) test -count=1 -tags synctests -timeout 15m -run '^TestGroup' ./internal/sim

# librdkafka's source and tests are in the package of Confluent's client for Node.
LIBRDKAFKA := bin/librdkafka
RDSOURCE   := $(LIBRDKAFKA)/node_modules/@confluentinc/kafka-javascript/deps/librdkafka
RDRUNNER   := $(RDSOURCE)/tests/test-runner
SUITES      = SUITES_RUNNER='$(abspath $(RDRUNNER))' SUITES_KAFKA='$(abspath $(KAFKA))' $(GO) test -count=1 -tags clients

# Debian: apt-get install kcat jq nodejs npm default-jdk-headless maven build-essential zlib1g-dev libzstd-dev libssl-dev rapidjson-dev
test-clients: kafka-jars $(RDRUNNER) ## Kafka's clients, built from examples/, Kafka's own tools and clients' test suites against the real server; the first time builds librdkafka
	$(GO) vet -tags 'clients cluster' ./internal/clienttest ./internal/killtest ./internal/suites
	CLIENTS_KAFKA='$(abspath $(KAFKA))' $(GO) test -count=1 -tags clients -parallel 8 -timeout 30m ./internal/clienttest
	$(GO) test -count=1 -tags clients -run Kcat -timeout 10m ./internal/killtest
	$(SUITES) -skip '^TestKgoChaos$$' -parallel 8 -timeout 30m ./internal/suites

$(RDRUNNER): examples/librdkafka/package-lock.json
	mkdir -p $(LIBRDKAFKA) && cp examples/librdkafka/package.json examples/librdkafka/package-lock.json $(LIBRDKAFKA)
	cd $(LIBRDKAFKA) && npm ci --ignore-scripts
	cd $(RDSOURCE) && ./configure --disable-gssapi --disable-curl --disable-lz4-ext --disable-optimization --disable-debug-symbols
	$(MAKE) -C $(RDSOURCE) -j2 libs
	$(MAKE) -C $(RDSOURCE)/tests -j2 build

test-librdkafka: kafka-jars $(RDRUNNER) ## all of librdkafka's tests of brokers, in both group protocols; make test-clients runs a third
	SUITES_LIBRDKAFKA=all $(SUITES) -run '^TestLibrdkafka$$' -parallel 8 -timeout 1h ./internal/suites

test-kgo: ## franz-go's own tests, with as many records as its authors send, against one node and three; then its groups with connections that break
	SUITES_KGO_RECORDS=500000 $(GO) test -count=1 -v -tags clients -run '^TestKgo' -timeout 1h ./internal/suites

# Debian, beside the above: apt-get install iproute2 nftables util-linux.
# make test-cluster CLUSTER_FOR=1h CLUSTER_TIMEOUT=2h KILL_SEED=7
CLUSTER_FOR     ?= 3m
CLUSTER_TIMEOUT ?= 20m

test-cluster: build kafka-jars ## as root: three processes in network name spaces, killed, stopped, cut off and filled, restarted in turn under Kafka's clients, and killed and cut off under 500 members of consumer groups
	KILL_BINARY='$(abspath $(BIN))' KILL_KAFKA='$(abspath $(KAFKA))' CLUSTER_FOR=$(CLUSTER_FOR) \
		$(GO) test -count=1 -v -tags 'cluster clients' -exec 'unshare --net --mount' -run '^TestCluster' -timeout $(CLUSTER_TIMEOUT) ./internal/killtest

race: ## the concurrent packages under the race detector
	$(GO) test -count=1 $(RACEFLAGS) -timeout 30m $(RACE)

race-all: ## every package under the race detector, the servers that tests start among them: over an hour
	GOFLAGS=-race GORACE=halt_on_error=1 $(GO) test $(RACEFLAGS) -short -count=1 -p 1 -timeout 90m ./...

FUZZTIME ?= 60s

# Go takes a minute to make one new input smaller if nobody says otherwise: all the time that there is.
fuzz: ## every fuzz target in turn, for FUZZTIME each
	@targets=$$($(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, name[i]; n = 0 }'); \
	echo "$$targets" | { while read -r pkg name; do \
		echo "== $$name of $$pkg, $(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s "$$pkg" || exit 1; \
	done; } || exit 1; \
	echo "$$(echo "$$targets" | wc -l) fuzz targets, $(FUZZTIME) each"

# make mutants MUTANTS=1/3: the first third of them. AGAIN=4s: each one's test over and
# over for that long, which tells of those that are killed with luck only.
MUTANTS ?= 1/1
AGAIN   ?= 0s

mutants: ## takes each guard away and sees its test fail
	$(GO) run ./internal/mutants -shard $(MUTANTS) -again $(AGAIN)

# make soak FOR=10m SEED=7
FOR  ?= 1h
SEED ?= $(shell date +%s)

soak: ## the real server on a small disk under load, killed, restarted, paused and filled, by seed
	$(GO) run ./internal/soak -for $(FOR) -seed $(SEED)

soak-sim: ## histories of three nodes in virtual time for FOR, from seed SEED on: how many, and what they went through
	SIM_FOR=$(FOR) SIM_FROM=$(SEED) $(GO) test -count=1 -timeout 0 -v -run '^TestClusterHistories$$' ./internal/sim

sim-bugs: ## each seeded bug of internal/sim against the seeds 1 to 100, and how many of them found it
	SIM_TABLE=1 $(GO) test -count=1 -timeout 0 -v -run '^TestSeededBugs$$' ./internal/sim

# Folder with the jars of Apache Kafka; make kafka-jars fetches them. They need Java 17.
KAFKA ?= bin/kafka

kafka-jars: ## Apache Kafka's jars into KAFKA, by Maven
	mvn -q -f internal/kafkadiff/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory='$(abspath $(KAFKA))'

record-kafka: ## writes down what Apache Kafka answers to the scenarios of internal/kafkadiff
	$(GO) run ./internal/kafkadiff record -jars '$(KAFKA)'

test-differential: build ## the scenarios against Apache Kafka and the binary, both fresh, answers compared
	$(GO) run ./internal/kafkadiff compare -jars '$(KAFKA)' -binary $(BIN)

# make bench-kafka PAIRS=5 DATA=DIR: both servers' data goes into DATA.
PAIRS ?= 5
DATA  ?=

bench-kafka: build kafka-jars ## Flotilla and Apache Kafka in turns under the same load: medians, and all reports in bin/bench-kafka.json
	$(GO) build -o bin/peers ./bench/peers
	bin/peers -flotilla $(BIN) -kafka '$(KAFKA)' -dir '$(DATA)' -pairs $(PAIRS) -json bin/bench-kafka.json

# make bench-cluster PAIRS=1 DURATION=5s: three nodes of each, so they share the machine's CPUs.
DURATION ?= 15s

bench-cluster: build kafka-jars ## three nodes of Flotilla and of Apache Kafka in turns: medians, and all reports in bin/bench-cluster.json
	$(GO) build -o bin/peers ./bench/peers
	bin/peers -nodes 3 -flotilla $(BIN) -kafka '$(KAFKA)' -dir '$(DATA)' -pairs $(PAIRS) -duration $(DURATION) -warmup 2s -json bin/bench-cluster.json

bench-failover: build ## three nodes, killed and stopped under load: what clients wait for; many partitions; a catch-up
	$(GO) build -o bin/failover ./bench/failover
	bin/failover -flotilla $(BIN) -dir '$(DATA)' -json bin/bench-failover.json

# make bench-groups [KAFKA=DIR] [DATA=DIR]
bench-groups: build kafka-jars ## consumer groups: idle members, commits, and who takes over from a member that leaves, beside Apache Kafka
	$(GO) build -o bin/groups ./bench/groups
	bin/groups -flotilla $(BIN) -kafka '$(KAFKA)' -dir '$(DATA)' -json bin/bench-groups.json

clean:
	rm -rf bin

# The commands of the project. `make run` and `make test` install what they need.

CARGO ?= cargo
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.PHONY: run optimized edge partners tiers agents cluster resilience canary versions-by-consumer build test keys lint fmt bench instructions memory fuzz setup setup-test setup-bench setup-optimized setup-fuzz

run: setup              ## builds the release binary and serves conf/quickstart.yaml before two small upstreams
	$(CARGO) build --release --locked
	@scripts/quickstart.sh target/release/sluice

edge: build             ## serves conf/edge.yaml, HTTPS with a certificate that this makes, before a small upstream
	@scripts/edge-certificate.sh
	@target/release/sluice echo --address 127.0.0.1:3001 --name orders & trap "kill $$!" EXIT; target/release/sluice run conf/edge.yaml

partners tiers agents: build  ## serve conf/partners.yaml (or tiers, agents) before two small upstreams, with lines to paste
	@scripts/try.sh $@ target/release/sluice

resilience: build        ## breaks the upstreams of conf/resilience.yaml one by one and shows what clients see
	@scripts/resilience.sh target/release/sluice

canary versions-by-consumer: build  ## serve conf/canary.yaml or versions-by-consumer.yaml before small upstreams
	@target/release/sluice test conf/$@.yaml
	@for n in 1 2 3; do target/release/sluice echo --address 127.0.0.1:300$$n --name $$n & pids="$$pids $$!"; done; \
	trap "kill $$pids" EXIT; target/release/sluice run conf/$@.yaml

cluster: build           ## serves conf/cluster: HAProxy before three gateways that share limits over Redis, all on this machine
	@scripts/cluster.sh target/release/sluice

build: setup
	$(CARGO) build --release --locked

test: setup-test lint   ## everything that CI runs
	$(CARGO) build --locked --bins --examples
	$(CARGO) nextest run --locked --no-fail-fast
	$(CARGO) nextest run --locked --profile keys
	@scripts/late-checks.sh
	@scripts/flaky.sh

keys: setup-test        ## each test that proves a key, without the key: it must fail
	$(CARGO) nextest run --locked --profile keys

lint: setup-test
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	cargo-deny --log-level error check bans licenses sources
	@scripts/house.sh

fmt:
	$(CARGO) fmt

bench: setup-bench      ## CPU a request and ratios to nginx, side by side; writes target/compare/table.md
	$(CARGO) build --release --locked
	python3 benches/compare/run.py

optimized: setup-optimized ## builds target/optimized/sluice, guided by a profile of the benches' jobs: less CPU a request, for production
	@scripts/optimized.sh

instructions: setup-test ## instructions a request under callgrind, against a bare Pingora proxy
	$(CARGO) build --release --locked --bins --examples
	python3 benches/instructions/run.py --check 1.08 1.25 --check-caller 4200 1000 --check-upstream 1500

memory: build            ## idle start, idle connections, reloads, callers in the table of limits; fails beyond a bound
	python3 benches/memory/idle.py target/release/sluice --connections 9950
	python3 benches/memory/reloads.py target/release/sluice
	$(CARGO) run --release --locked --example limiter-memory

fuzz: setup-fuzz        ## each target for 60 s
	@scripts/fuzz.sh 60

setup:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test

setup-fuzz:
	@scripts/setup.sh fuzz

setup-bench:
	@scripts/setup.sh bench

setup-optimized:
	@scripts/setup.sh optimized

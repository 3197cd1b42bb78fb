# What a person types. Each target does its own set-up.

SHELL := bash
CARGO ?= cargo
BIN := target/release/debros
# A target directory that is set outside holds the binary as well.
ifdef CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/release/debros
endif
# The names under which the executable behaves as that program.
LINKS := node identity
# Seconds for each fuzz target, or of determinism.
FUZZ_SECONDS := $(or $(SECONDS),60)

.PHONY: help setup build run test lint sim torture determinism fuzz bench startup idle long clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Install what building needs (a C compiler), if it is missing
	@command -v cc >/dev/null || { apt-get update -qq && apt-get install -y -qq gcc libc6-dev; }
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }

# What /v1/version tells: the commit, and when it was made. The hour of the build would compile anew each time.
build: export DEBROS_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
build: export DEBROS_BUILD_TIME := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ 2>/dev/null)
build: setup ## Build bin/debros (release) and its links
	$(CARGO) build --release --bin debros
	@mkdir -p bin target/release
	@cp -f $(BIN) bin/debros
	@test $(BIN) = target/release/debros || cp -f $(BIN) target/release/debros
	@for name in $(LINKS); do ln -sf debros bin/$$name; done

run: build ## Build and start a single node, gateway on 127.0.0.1:6001, data in ./data
	bin/debros node --data ./data

test: setup ## Everything .ci/run decides by: format, lints, all tests
	$(CARGO) fmt --check
	$(CARGO) clippy --profile ci --all-targets -- -D warnings
	$(CARGO) test --profile ci

lint: setup ## Format and lints only
	$(CARGO) fmt --check
	$(CARGO) clippy --profile ci --all-targets -- -D warnings

sim: setup ## Long simulation: SIM_RUNS=10000 make sim
	SIM_RUNS=$${SIM_RUNS:-2000} $(CARGO) test --profile sim --test sim -- --nocapture

torture: setup ## kill -9 under load, 50 rounds: ROUNDS=50 make torture
	TORTURE_ROUNDS=$${ROUNDS:-50} $(CARGO) test --profile ci --test system -- --nocapture torture

determinism: setup ## Generated SQL in many manners, equal results: SECONDS=60 make determinism
	DETERMINISM_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --profile ci --lib -- --nocapture sql::scripts::neither

fuzz: setup ## Fuzz every reader of foreign bytes, SECONDS each: SECONDS=60 make fuzz (see fuzz/README.md)
	@command -v c++ >/dev/null || { apt-get update -qq && apt-get install -y -qq g++; }
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@cd fuzz && for target in $$($(CARGO) fuzz list); do \
		echo "== $$target"; mkdir -p found/$$target; \
		$(CARGO) fuzz run --sanitizer=none $$target found/$$target corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=8192 -verbosity=0 || exit 1; \
	done

bench: build ## The figures of one node beside the disk, HTTP alone and Redis (needs redis-server)
	@command -v redis-server >/dev/null || { apt-get update -qq && apt-get install -y -qq redis-server; }
	benches/run.sh

startup: build ## How fast does a node start, and what does it cost when idle
	benches/startup.sh

idle: build ## What do namespaces cost that nobody asks: N=2000 make idle
	benches/idle.sh

long: build ## What do long statements cost those beside them? TABLE_MIB=1024 ROWS=1000000 make long
	@command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk; }
	benches/long.sh

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf bin

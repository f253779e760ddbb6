# `make help` lists what can be done. Everything runs from a fresh clone; what is missing is built, saying so.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

control-plane := tests/control-plane
cluster := $(CURDIR)/target/cluster
target := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
crds := charts/panacea/crds/panacea.dev.yaml
# Built into a cache outside the tree, like the programs of the control plane.
deny-version := 0.20.2
deny-root := $(or $(PANACEA_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/panacea)/cargo-deny-$(deny-version)
deny := PATH="$$PATH:$(deny-root)/bin" cargo deny --locked check --hide-inclusion-graph licenses bans sources

# The test harness reports times only with this variable; cargo must not see it, or it compiles everything again.
timed-test := cargo test --locked --config 'target."cfg(all())".runner=["env","RUSTC_BOOTSTRAP=1"]'
report-time := -- -Zunstable-options --report-time

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "cargo is needed: install Rust 1.94 or newer, see https://rustup.rs" >&2; exit 1; }

.PHONY: build
build: cargo ## Build the operator (target/debug/panacea)
	cargo build --locked --bin panacea

.PHONY: servers
servers:
	@$(control-plane)/postgres install
	@$(control-plane)/postgres install-pooler
	@$(control-plane)/prometheus install
	@for part in control-plane helm metrics-server flux argo; do $(control-plane)/build $$part >/dev/null; done

.PHONY: test
test: cargo servers ## Run all tests, on a real Kubernetes API server, PostgreSQL and Prometheus
	@# Compiled first, so that no servers run meanwhile.
	cargo test --locked --lib --bins --tests --examples --no-run
	$(timed-test) --lib --bins --test integration $(report-time) | tests/slowest
	@# End-to-end tests wait more than they work: side by side, each in its own namespace.
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-8} $(control-plane)/with --install $(timed-test) --test e2e $(report-time) | tests/slowest

.PHONY: fmt
fmt: cargo ## Format the sources
	cargo fmt

.PHONY: lint
lint: cargo ## Check format, clippy (warnings are errors), shell syntax and, where cargo-deny is installed, the crates
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	for file in .ci/run $(control-plane)/*; do if [[ $$file == *.sh ]] || { [[ -f $$file ]] && head -n1 "$$file" | grep -q bash; }; then bash -n "$$file"; fi; done
	@if PATH="$$PATH:$(deny-root)/bin" command -v cargo-deny >/dev/null; then $(deny); \
	else echo "licences and sources of the crates were not checked: cargo-deny is not installed; make deny installs it and checks"; fi

.PHONY: deny
deny: cargo ## Check licences, duplicates and sources of the crates (deny.toml)
	@PATH="$$PATH:$(deny-root)/bin" command -v cargo-deny >/dev/null || { \
	  echo "cargo-deny checks the crates: installing $(deny-version) from crates.io into $(deny-root) (once; 8 minutes of CPU)"; \
	  cargo install --locked --quiet --root "$(deny-root)" --version $(deny-version) cargo-deny; }
	@$(deny)

.PHONY: crds
crds: cargo ## Generate crds/ and the chart's copy from src/api
	mkdir -p crds charts/panacea/crds
	cargo run --quiet --locked --bin panacea -- crds >$(crds).new
	mv $(crds).new $(crds)

.PHONY: demo
demo: cargo ## Watch bad releases being detected, rolled back and verified (CLUSTER=current: on the cluster of the current kubectl context)
ifeq ($(CLUSTER),current)
	cargo build --locked --bin panacea --example demo
	$(target)/debug/examples/demo current
else
	@echo "The first run builds the operator and a Kubernetes control plane: about 15 minutes on two cores. Later runs start within half a minute."
	@# In parallel: cargo waits for single crates, Go for single packages.
	@$(control-plane)/build >/dev/null & servers=$$!; \
	cargo build --locked --bin panacea --example demo || { kill $$servers 2>/dev/null; exit 1; }; wait $$servers
	PANACEA_LEAN=1 $(control-plane)/with --operator $(target)/debug/examples/demo
endif

.PHONY: manifests
manifests: ## Render the chart's default values into deploy/kustomize/panacea.yaml
	$$($(control-plane)/build helm)/helm template panacea charts/panacea --namespace panacea-system >deploy/kustomize/panacea.yaml.new
	mv deploy/kustomize/panacea.yaml.new deploy/kustomize/panacea.yaml

.PHONY: cluster
cluster: cargo ## Start a cluster with the operator and stand-ins for the providers, and leave it running (target/cluster)
	@if [[ -f $(cluster)/env && -f $(cluster)/pids/supervisor ]] && kill -0 $$(head -n1 $(cluster)/pids/supervisor) 2>/dev/null; then \
	  echo "already running; make cluster-down ends it"; \
	else \
	  cargo build --locked --bin panacea --example stand-ins; \
	  $(control-plane)/up $(cluster); \
	  { $(control-plane)/stand-ins start $(cluster) && $(control-plane)/operator start $(cluster); } || { $(control-plane)/down $(cluster); exit 1; }; \
	fi
	@echo ". target/cluster/env"

.PHONY: cluster-down
cluster-down: ## End what `make cluster` started
	@$(control-plane)/down $(cluster)

.PHONY: bench
bench: cargo ## Measure the evaluation of components
	cargo bench --locked

.PHONY: bench-mttr
bench-mttr: cargo ## Measure the time from a bad release to its repair (RUNS=10)
	cargo build --release --locked --bin panacea --example bench
	PANACEA_BIN=$(target)/release/panacea $(control-plane)/with --install $(target)/release/examples/bench mttr

.PHONY: bench-remedies
bench-remedies: cargo ## Measure the remedies beside kubectl (RUNS=3 PODS="3 30 300")
	cargo build --release --locked --bin panacea --example bench
	PANACEA_BIN=$(target)/release/panacea $(control-plane)/with --install $(target)/release/examples/bench remedies

.PHONY: bench-memory
bench-memory: cargo ## Measure the operator's memory with 1 and 1,000 components
	cargo build --release --locked --bin panacea --example bench
	PANACEA_BIN=$(target)/release/panacea $(control-plane)/with --install $(target)/release/examples/bench memory

.PHONY: bench-memory-http
bench-memory-http: cargo ## Measure the operator's memory and CPU with http components (COMPONENTS=10000)
	cargo build --release --locked --bin panacea --example bench
	PANACEA_BIN=$(target)/release/panacea $(control-plane)/with --install $(target)/release/examples/bench memory-http

.PHONY: bench-hosting
bench-hosting: cargo ## Measure how many of Render's services one API key serves (LOOKS=10000)
	cargo build --release --locked --example bench
	$(target)/release/examples/bench hosting

.PHONY: bench-ledger
bench-ledger: cargo ## Measure the ledger: writing beside COPY and executemany (RUNS=3), its questions on ten million rows
	@$(control-plane)/postgres install
	cargo build --release --locked --example bench
	$(target)/release/examples/bench ledger
	$(target)/release/examples/bench ledger-queries

.PHONY: foresight
foresight: cargo ## Measure the forecaster on recorded histories (DATA=folder of sets)
	@[[ -n "$${DATA:-}" ]] || { echo "name the folder of the sets: make foresight DATA=DIR (its format: docs/foresight.md)" >&2; exit 1; }
	cargo run --quiet --release --locked --example foresight -- "$$DATA"

.PHONY: clean
clean: cluster-down ## End the cluster and remove what was built here
	rm -rf target

# What a person and CI call. Every target says what it does while it does it.
# As root on Debian with Rust and Go, `make deps` installs the little that is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)/debug

# A failed test's message should not be buried under the stack of its error value.
export RUST_LIB_BACKTRACE ?= 0

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: workspace ## a real scheduler brings pods to the nodes that hold their data; KEEP=1 leaves the cluster up
	@$(TARGET)/hearth-prepare demo
	@$(TARGET)/hearth-demo $(if $(KEEP),--keep)

test: deps ## all tests, with a real control plane
	cargo test --workspace

bench: deps ## the benchmarks behind BENCHMARKS.md, one after the other, in release mode
	@echo "== cache_policy"; cargo bench -p hearth-core --bench cache_policy
	@for bench in scheduler_calls report_load agent_restart agent_fill read_views publish agent_memory listing many_datasets training beside_readers; do \
		echo "== $$bench"; cargo bench -p hearth-tests --features bench-support --bench $$bench; \
	done

deps: workspace ## install what is missing and build the test cluster's programs once
	@$(TARGET)/hearth-prepare

# Only root can run real nodes, so only root is asked for what they take.
workspace:
	@need() { command -v "$$1" >/dev/null || missing+=" $$2"; }; missing=""; \
	need setpriv util-linux; need cc gcc; need dpkg-deb dpkg; need python3 python3; need java default-jre-headless; need mvn maven; \
	python3 -m pip --version >/dev/null 2>&1 || missing+=" python3-pip"; \
	if [ "$$(id -u)" = 0 ]; then \
		need containerd containerd; need runc runc; need ip iproute2; need busybox busybox-static; \
		need mkfs.ext4 e2fsprogs; need fio fio; [ -e /usr/lib/cni/bridge ] || missing+=" containernetworking-plugins"; \
	fi; \
	if [ -n "$$missing" ]; then \
		echo "installing from Debian:$$missing"; \
		[ "$$(id -u)" = 0 ] || { echo "please install$$missing, or run this as root"; exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends$$missing; \
	fi
	@command -v cargo >/dev/null || { echo "please install Rust (https://rustup.rs): rust-toolchain.toml names the version"; exit 1; }
	@[ -n "$${KUBEBUILDER_ASSETS:-}" ] || command -v go >/dev/null || { echo "please install Go 1.26 or newer, or set KUBEBUILDER_ASSETS"; exit 1; }
	@echo "building the workspace"
	@cargo build --workspace --bins

.PHONY: help demo test bench deps workspace

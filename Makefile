# `make help` lists every verb.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_COLOR ?= auto

PACKAGES := build-essential pkg-config ca-certificates git e2fsprogs xfsprogs mount attr acl libcap2-bin strace jq \
	skopeo podman buildah umoci crun runc docker-registry mmdebstrap erofs-utils busybox-static uidmap iproute2

.PHONY: help setup build test lint demo clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need (Debian 12 or 13)
	@bash scripts/setup $(PACKAGES)

build: setup ## build the release programs into target/release
	cargo build --release --locked

lint: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: setup lint ## everything that a change must pass
	cargo test --workspace --locked

clean: ## remove what was built
	cargo clean

# `make help` lists every verb.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_COLOR ?= auto

PACKAGES := build-essential pkg-config ca-certificates git e2fsprogs xfsprogs mount attr acl libcap2-bin strace jq rpm \
	skopeo podman buildah umoci crun runc docker-registry mmdebstrap erofs-utils busybox-static uidmap iproute2 python3 python3-seccomp dbus-daemon gnupg openssl
# Not in every release; tests that need them say so where they are not.
WISHED_PACKAGES := composefs docker.io:dockerd containerd:containerd nginx:nginx bats:bats gawk:gawk criu catatonit
# What the guest of test-vm is built and run with.
VM_PACKAGES := mmdebstrap qemu-system-x86 e2fsprogs binutils
# What the benches measure against.
BENCH_PACKAGES := podman skopeo crun containerd docker-registry ostree time util-linux

.PHONY: help need-root setup build tools test test-vm conformance conformance-runtime coverage fuzz lint docs fixtures fixtures-bench fixtures-clean demo bench clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need (Debian 12 or 13)
	@bash scripts/setup $(PACKAGES) -- $(WISHED_PACKAGES)

build: setup ## build the release programs into target/release
	cargo build --release --locked

lint: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: ## the crates' documentation, in which a broken link is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

fixtures: setup ## build the images that tests and demo use, if they are not there
	cargo xtask fixtures core

fixtures-bench: setup ## build the images that the benches use too
	cargo xtask fixtures bench

fixtures-clean: ## forget the images, those of other clones too
	rm -rf $${GANTRY_FIXTURES:-fixtures} "$${XDG_CACHE_HOME:-$$HOME/.cache}/gantry/fixtures"

tools: ## build cosign 2 and 3 once, which judge sigstore signatures (needs Go and its module proxy; some minutes)
	cargo xtask tools

test: setup tools lint docs ## everything that a change must pass; ends with the tests that were skipped
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory fixtures; \
	else echo "not root: images are not built (they hold foreign owners and device nodes), and tests that mount are skipped"; fi
	@mkdir -p target && rm -f target/skips
	cargo build --workspace --locked
	GANTRY_SKIPS=$(CURDIR)/target/skips cargo test --workspace --locked
	@if [ -s target/skips ]; then echo "skipped:"; sed 's/^/  /' target/skips; else echo "nothing was skipped"; fi

test-vm: need-root ## what this kernel or set-up cannot show, in a Debian 13 guest under QEMU (root); VM="cgroups podman" chooses
	@bash scripts/setup $(PACKAGES) $(VM_PACKAGES)
	cargo xtask vm $(VM)

conformance: setup ## the distribution specification's own suite against our registry (needs Go and its module proxy)
	cargo build --locked -p gantry
	cargo xtask conformance

conformance-runtime: need-root setup ## runtime-tools' validation programs against our OCI runtime and crun (root; needs Go and its module proxy)
	cargo build --locked -p gantry
	cargo xtask conformance-runtime

coverage: ## prove that tests run every branch of what decides on trust (needs llvm-tools of rustup)
	cargo xtask coverage

fuzz: ## feed every reader of untrusted bytes to libFuzzer (needs a nightly compiler); FUZZ="--seconds 600 policy" chooses
	cargo xtask fuzz $(FUZZ)

need-root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: it installs packages, makes mounts (a scratch file system, the share on the second host," \
	"the containers' roots) and namespaces, and an unpacked image has files of many owners and device nodes" >&2; exit 1; }

demo: need-root build fixtures ## push an image and run it on a second host that pulls nothing (root)
	cargo xtask demo

bench: need-root build fixtures-bench ## measure beside podman, skopeo, containerd, crun, ostree (root); BENCH="pull start" chooses
	@bash scripts/setup $(BENCH_PACKAGES)
	cargo xtask bench $(BENCH)

clean: ## remove what was built
	cargo clean

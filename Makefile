# What a fresh Debian machine with git and a Rust toolchain needs to run, test and package Encamp.
#
#   make demo     build it, start it on loopback, rehearse with 20 simulated phones, leave it running until Ctrl-C
#   make test     everything that proves it, against independent programs too; the last line is `N passed, N failed`
#   make bench    what a registration, a call, a text, a mail, a redirect and a DNS answer cost on this machine; Kamailio's redirect too
#   make deb      a Debian package under target/debian/
#   make check    formatting and lints
#   make peers    only fetch the programs that the tests are run against
#
# Debian packages are installed by name, only those that are missing, as root or through sudo. No service is started: programs
# that Debian would start or that would bring too much (nsd, Kamailio, baresip, tshark, OpenSMTPD, Exim) are unpacked below target/peers
# and not installed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
MAKEFLAGS += --no-print-directory

# rustup's toolchain, also where the shell's profile has not been read.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# RocksDB takes half an hour of CPU time to compile. A machine that tests every change in a new clone keeps what it has built outside
# of the clone, in one place for all of them.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/encamp-target
else
export CARGO_TARGET_DIR ?= $(CURDIR)/target
endif

# Where the unpacked servers are: programs in $ENCAMP_PEERS/bin.
export ENCAMP_PEERS ?= $(CURDIR)/target/peers
export ENCAMP_BIN ?= $(CARGO_TARGET_DIR)/release/encamp

# Every cargo call uses this profile: a second one would build RocksDB a second time.
RELEASE := --release --locked

# To build: RocksDB is C++, and its bindings are made with libclang.
BUILD_PACKAGES := gcc g++ make libclang-dev
# To test: simulated base stations (python3), sipp, sipsak, dig, osmo-auc-gen; swaks is Perl, certificates come from openssl; pip fetches
# one peer's tables.
TEST_PACKAGES := python3 python3-pip perl openssl sip-tester sipsak bind9-dnsutils libosmocore-utils

.PHONY: help build demo test bench deb check peers clean toolchain build-packages test-packages

help:
	@sed -n 's/^#   make /  make /p' Makefile

# --- What the machine must have --------------------------------------------------------------------------------------

toolchain:
	@want=$$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
	for tool in cargo rustc; do
	    if ! command -v $$tool >/dev/null; then
	        echo "Encamp is built with Rust $$want or newer, and there is no $$tool here. Debian's own is too old; get it from rustup:" >&2
	        echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
	        exit 1
	    fi
	    have=$$($$tool --version | cut -d' ' -f2 | cut -d- -f1)
	    if [ "$$(printf '%s\n' "$$want" "$$have" | sort -V | head -n 1)" != "$$want" ]; then
	        echo "Encamp needs Rust $$want or newer; $$(command -v $$tool) is $$have. Debian's is too old; with rustup: rustup update stable" >&2
	        exit 1
	    fi
	done

# Installs what is missing of the named packages, in one go.
define install
	missing=
	for package in $(1); do
	    case "$$(dpkg-query -W -f='$${db:Status-Abbrev}' $$package 2>/dev/null || true)" in ii*) ;; *) missing="$$missing $$package" ;; esac
	done
	if [ -n "$$missing" ]; then
	    echo "Debian packages needed and not installed:$$missing"
	    root=
	    if [ "$$(id -u)" != 0 ]; then
	        command -v sudo >/dev/null || { echo "Please install them as root: apt-get install$$missing" >&2; exit 1; }
	        root=sudo
	    fi
	    $$root apt-get update -q
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing
	fi
endef

build-packages:
	@$(call install,$(BUILD_PACKAGES))

test-packages: build-packages
	@$(call install,$(TEST_PACKAGES))

peers: test-packages
	@tests/peers/fetch.sh "$(ENCAMP_PEERS)"

# --- Building --------------------------------------------------------------------------------------------------------

build: toolchain build-packages
	@if [ ! -x "$(CARGO_TARGET_DIR)/release/encamp" ]; then
	    echo "The first build compiles RocksDB: about half an hour of CPU time, once."
	fi
	cargo build $(RELEASE)

deb: build
	@if ! command -v cargo-deb >/dev/null && [ ! -x "$(CARGO_TARGET_DIR)/tools/bin/cargo-deb" ]; then
	    cargo install --locked --root "$(CARGO_TARGET_DIR)/tools" cargo-deb
	fi
	PATH="$(CARGO_TARGET_DIR)/tools/bin:$$PATH" cargo deb --no-build --strip
	ls -l "$(CARGO_TARGET_DIR)"/debian/*.deb

check: toolchain build-packages
	cargo fmt --check
	cargo clippy $(RELEASE) --all-targets -- -D warnings
	cargo clippy $(RELEASE) --no-default-features --all-targets -- -D warnings

clean:
	cargo clean
	rm -rf target/demo target/peers

# --- Running ---------------------------------------------------------------------------------------------------------

demo: build
	@tests/demo.sh "$(CARGO_TARGET_DIR)/release/encamp"

bench: build
	cargo bench --locked

# --- Testing ---------------------------------------------------------------------------------------------------------

# The thinking part first: it builds and tests in a minute, and what fails there need not wait for RocksDB. Both parts are run even
# if the first one fails; the tests over real sockets need the binary. The last line counts all of them.
# `make test BLACKBOX=test_sipp` runs of the tests over real sockets only those whose name contains this.
test: toolchain peers
	@logs="$(CURDIR)/target/test-logs"
	mkdir -p "$$logs"
	status=0
	step() {
	    name=$$1; shift
	    printf '\n== %s: %s\n' "$$name" "$$*"
	    "$$@" 2>&1 | tee "$$logs/$$name.log" || status=1
	}
	step core cargo test $(RELEASE) --no-fail-fast --no-default-features
	step whole cargo test $(RELEASE) --no-fail-fast
	step build cargo build $(RELEASE)
	printf '\n== black box: the real binary, real sockets, independent peers\n'
	python3 tests/blackbox/run.py $(BLACKBOX) --with-cargo-log "$$logs/core.log" --with-cargo-log "$$logs/whole.log" --exit-with $$status

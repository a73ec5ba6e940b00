.PHONY: run test check fmt load timing install attacker schemathesis slow fuzz deny mutants

# Serves the whole flow on 127.0.0.1:8080 with nothing beside it.
run:
	cargo run

# Installs what the tests need, then runs them all.
test: install
	cargo test --locked
	cargo test --locked --manifest-path bench/load/Cargo.toml
	cargo build --locked && npm --prefix tests/interop test
	.venv/bin/python tests/schemathesis/run.py --seed 1 --examples 200 --at-least 1000
	.venv/bin/python tests/schemathesis/run.py --guarded --seed 1 --examples 50 --at-least 400

# What a change must pass besides its tests.
check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --manifest-path bench/load/Cargo.toml -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

fmt:
	cargo fmt

# Latency, throughput, CPU and memory on both backends, in one table.
load:
	cargo build --locked --release
	cargo run --locked --release --manifest-path bench/load/Cargo.toml -- table --binary target/release/otpost

# Whether the time of an answer tells what the answer does not, on both backends; TIMING_REQUESTS of each class.
TIMING_REQUESTS ?= 20000
timing:
	cargo build --locked --release
	cargo run --locked --release --manifest-path bench/load/Cargo.toml -- timing --binary target/release/otpost --requests $(TIMING_REQUESTS)

# An attacker with a year: his best schedule for either `otp.resend`, what it yields, and the bound.
attacker: install
	cargo test --locked --test it store_attacker -- --nocapture

# Three random seeds with at least 5,000 cases each against what openapi.json says, and one with at least
# 1,500 where an API key is asked for and limits count.
schemathesis: install
	cargo build --locked
	.venv/bin/python tests/schemathesis/run.py --random-seeds 3 --examples 800 --at-least 5000
	.venv/bin/python tests/schemathesis/run.py --guarded --examples 800 --at-least 1500

# Slow and silent clients, 1,000 at once; needs Debian's slowhttptest.
slow: install
	cargo build --locked
	.venv/bin/python tests/slow/run.py

# Each fuzz target for FUZZ_SECONDS; needs `cargo install --locked cargo-fuzz`.
FUZZ_SECONDS ?= 600
fuzz:
	bash fuzz/run $(FUZZ_SECONDS)

# Licences, sources and bans of dependencies; needs `cargo install --locked cargo-deny`.
deny:
	cargo deny --locked check licenses bans sources

# Changes the rules and looks whether a test notices: first those beside the rules, which are fast, then
# for what they missed the contract of the store and the endpoints. Needs `cargo install --locked cargo-mutants`.
mutants:
	-cargo mutants -C --lib
	cargo mutants --iterate -C --test=it -- -- contract::store api::

install:
	bash tests/install

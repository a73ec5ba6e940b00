.PHONY: run test check fmt load install

# Serves the whole flow on 127.0.0.1:8080 with nothing beside it.
run:
	cargo run

# Installs what the tests need, then runs them all.
test: install
	cargo test --locked
	cargo test --locked --manifest-path bench/load/Cargo.toml
	cargo build --locked && npm --prefix tests/interop test

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

install:
	bash tests/install

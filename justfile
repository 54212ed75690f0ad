# Tasks of this repository. CI calls `.ci/run`, which does what `check` does on a bare machine, and more.

# What a change must pass.
check: test deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests.
test:
    cargo test --workspace --locked

# Prepares a benchmark of this machine: builds the release program, and generates lines.
bench lines="1000000":
    cargo build --release --locked
    ./target/release/spillq bench generate {{lines}} > /dev/null

# Writes docs/man from the table of the command line.
man:
    rm -f docs/man/*.1
    cargo run --locked -- man --dir docs/man

# The Debian package, in target/package.
package:
    deploy/package

# Licences, sources and versions of dependencies; advisories if their database can be fetched.
deny:
    .ci/deny

# The long campaigns: hours, as root. Fails if anything failed or was skipped. The counts are divided by `by`.
torture by="1":
    torture/tier long {{by}}

# Before a release, for days: other seeds, higher counts, and every fuzz target.
torture-release by="1":
    torture/tier release {{by}}

# Before an issue is resolved: `.ci/run`, the long campaigns divided by `by`, fuzzing. Some hours, as root.
nightly by="10":
    .ci/nightly {{by}}

# Every fuzz target, a million runs each: hours. Needs cargo-fuzz, see docs/contributing/fuzzing.md.
fuzz runs="1000000":
    fuzz/run {{runs}}

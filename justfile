# What is done with this repository. CI calls `.ci/run`, which does what `check` does on a bare machine, and more.

# What a change must pass.
check: test deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests.
test:
    cargo test --workspace --locked

# Figures of this machine, in release.
bench lines="1000000":
    cargo build --release --locked
    ./target/release/spillq bench generate {{lines}} > /dev/null

# Writes docs/man anew, from the table of the command line.
man:
    rm -f docs/man/*.1
    cargo run --locked -- man --dir docs/man

# The Debian package, in target/package.
package:
    deploy/package

# Licences, sources and versions of dependencies; advisories where their database can be fetched.
deny:
    .ci/deny

# The long campaigns, for hours, as root; fails if anything fails or was skipped. Counts are divided by `by`.
torture by="1":
    torture/tier long {{by}}

# What is run before a release, for days: other seeds, more of each, and every fuzz target.
torture-release by="1":
    torture/tier release {{by}}

# What is run before an issue is called resolved: `.ci/run`, the long campaigns divided by `by`, fuzzing. Some hours, as root.
nightly by="10":
    .ci/nightly {{by}}

# Every fuzz target, a million runs each: hours. Needs cargo-fuzz, see docs/contributing/fuzzing.md.
fuzz runs="1000000":
    fuzz/run {{runs}}

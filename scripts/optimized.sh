#!/usr/bin/env bash
# Builds the release binary guided by a profile: builds one that counts, has it do what the benches ask for, builds again with the counts.
# The result is target/optimized/sluice, the binary for production. Takes two release builds and a minute.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
# It has to be that of the compiler: the format of the counts changes between versions.
if [ ! -x "$profdata" ]; then
  command -v rustup >/dev/null 2>&1 || { echo "please install the llvm-tools of this Rust" >&2; exit 1; }
  rustup component add llvm-tools
fi

work=$PWD/target/optimized
rm -rf "$work/counts"
mkdir -p "$work/counts"
# With a target named, build scripts and macros are built without these flags.
build() { RUSTFLAGS=$1 cargo build --release --locked --bin sluice --target "$host" --target-dir "$work/$2"; }

build "-Cprofile-generate=$work/counts" counting
export SLUICE=$work/counting/$host/release/sluice
# A round that is void (3), as where a slow machine had to drop lines of the log, has been worked all the same.
train() { python3 "benches/compare/$1.py" --only sluice --rounds 1 --seconds 2 || [ $? -eq 3 ]; }
# Plain HTTP, the full job, TLS, HTTP/2: what was never run would be taken for what nobody needs, and made small instead of fast.
train run
train tls
train http2

"$profdata" merge -o "$work/sluice.profdata" "$work"/counts/*.profraw
build "-Cprofile-use=$work/sluice.profdata" guided
cp "$work/guided/$host/release/sluice" "$work/sluice"
"$work/sluice" --version

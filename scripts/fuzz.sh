#!/usr/bin/env bash
# Runs each fuzz target for so many seconds (60), or only those that are named: `scripts/fuzz.sh 60 head config`.
# What fails stays as fuzz/corpus/TARGET/crash-*, where the ordinary tests replay it until it is mended; give it a name then.
#
# No sanitizer: the crate forbids unsafe code, so that it would only watch what others have fuzzed, and builds take half as long
# on the stable compiler. SANITIZER=address watches all the same; it needs `rustup toolchain install nightly`.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
sanitizer=${SANITIZER:-none}
tools=$PWD/target/tools
built=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export PATH=$tools/bin:$PATH

command -v c++ >/dev/null || { echo "please install a C++ compiler, such as Debian's g++: libFuzzer is built with it" >&2; exit 1; }
toolchain=()
if [ "$sanitizer" != none ]; then
  rustup toolchain list 2>/dev/null | grep -q '^nightly' || { echo "please install: rustup toolchain install nightly" >&2; exit 1; }
  toolchain=(+nightly)
fi
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$tools" cargo-fuzz

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's|^path = "targets/\(.*\)\.rs"$|\1|p' fuzz/Cargo.toml)
# The versions that are shipped; Cargo adds what only the targets need.
[ fuzz/Cargo.lock -nt Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
for target in "${targets[@]}"; do
  cargo "${toolchain[@]}" fuzz build --sanitizer "$sanitizer" --target-dir "$built" "$target"
done

failed=()
for target in "${targets[@]}"; do
  found=$built/corpus/$target
  mkdir -p "$found"
  case $target in config) longest=4096 ;; *) longest=1024 ;; esac
  words=(); [ ! -f "fuzz/words/$target" ] || words=("-dict=fuzz/words/$target")
  log=$built/$target.log
  if ! "$built"/*/release/"$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=$longest -print_final_stats=1 \
      "${words[@]}" -artifact_prefix="fuzz/corpus/$target/" "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
    failed+=("$target")
    grep -aE 'panicked|ERROR|Test unit written' -A2 "$log" | head -20
  fi
  printf '%-16s %s\n' "$target" "$(grep -a -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -1) runs: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }

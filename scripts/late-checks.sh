#!/usr/bin/env bash
# What is checked once the tests have passed: the instructions that a request costs, memory at rest, and the unit files.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked --quiet --bin sluice --example bare-proxy
# Of what a bare Pingora proxy needs; docs/benchmarks.md has the aims. One run: they repeat within 0.3 %.
python3 benches/instructions/run.py --runs 1 --requests 300 --check 1.08 1.25 --check-caller 4200 1000 --check-upstream 1500

# A thousand idle connections and the start; `make memory` has the whole.
python3 benches/memory/idle.py target/release/sluice --connections 1000 --idle-below 60

if ! command -v systemd-analyze > /dev/null; then
    echo "late-checks: systemd/sluice.service is not checked: there is no systemd-analyze here (Debian package systemd)" >&2
    exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# The unit names a binary that need not be installed where this runs.
sed 's|/usr/local/bin/sluice|/bin/true|' systemd/sluice.service > "$dir/sluice.service"
cp systemd/sluice.socket "$dir/"
said=$(systemd-analyze verify "$dir/sluice.service" "$dir/sluice.socket" 2>&1) || { echo "$said" >&2; exit 1; }
if grep -qE "sluice\.(service|socket)" <<< "$said"; then
    echo "$said" >&2
    exit 1
fi
# Fails where the exposure is 3.0 or more, in tenths.
systemd-analyze security --offline=true --threshold=29 "$dir/sluice.service" > "$dir/security" || { cat "$dir/security" >&2; exit 1; }
tail -n 1 "$dir/security"

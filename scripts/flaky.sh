#!/usr/bin/env bash
# Names the tests of the last `cargo nextest run` that failed and then passed: docs/decisions/0057.
set -euo pipefail
cd "$(dirname "$0")/.."

report=${1:-${CARGO_TARGET_DIR:-target}/nextest/default/junit.xml}
found=$(sed -n '/<testcase /{s/.*<testcase name="\([^"]*\)".*/\1/;h};/<flakyFailure/{x;p;x}' "$report")
[ -n "$found" ] || exit 0
{
    echo
    echo "=============================== FLAKY ==============================="
    sed 's/^/  /' <<< "$found"
    echo "Each of these failed once and passed the second time. That is a bug, of"
    echo "the test or of the gateway, and is mended before anything else is done:"
    echo "see CONTRIBUTING.md. What it said the first time is above, at TRY 1."
    echo "====================================================================="
} >&2

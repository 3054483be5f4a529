#!/usr/bin/env bash
# The rules of the house that no compiler knows: file heads, file lengths, proxy.rs, what is left open.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
say() { echo "house: $1" >&2; bad=1; }
while IFS= read -r f; do
  lines=$(awk '/^#\[cfg\(test\)\]/{exit} {c++} END{print c+0}' "$f")
  case $f in */tests.rs) lines=0 ;; esac
  [ "$lines" -le 400 ] || say "$f: $lines lines before its tests; 400 is the limit"
  head -1 "$f" | grep -q '^//!' || say "$f: does not open with //!"
done < <(git ls-files 'src/*.rs')
if [ -f src/proxy.rs ] && [ "$(wc -l < src/proxy.rs)" -gt 200 ]; then say "src/proxy.rs is over 200 lines; it says when, not what"; fi
git grep -nE 'todo!|unimplemented!|\b(FIXME|XXX|HACK)\b|#\[ignore' -- src tests benches && say "left open in the code"
[ $bad -eq 0 ]

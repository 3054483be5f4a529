#!/usr/bin/env bash
# Serves conf/resilience.yaml before four small upstreams, breaks them one by one, and shows what clients see. Usage: resilience.sh [BINARY]
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=${1:-target/release/sluice}
declare -A place
stop() { trap - EXIT INT TERM; kill "${place[@]}" 2>/dev/null || true; wait 2>/dev/null || true; }
trap stop EXIT
trap 'exit 1' INT TERM
begin() { "$sluice" echo --address "127.0.0.1:$1" --name "$2" 2>/dev/null & place[$2]=$!; await "http://127.0.0.1:$1/healthz"; }
break_it() { kill -KILL "${place[$1]}"; wait "${place[$1]}" 2>/dev/null || true; unset "place[$1]"; }
rest() { read -rt "$1" <> <(:) || true; }
await() { for _ in $(seq 100); do curl -sf -o /dev/null "$1" && return; rest 0.1; done; echo "nobody answers at $1" >&2; exit 1; }
# Waits until so many targets are given requests.
healthy() {
  for _ in $(seq 100); do
    [ "$(curl -s http://127.0.0.1:9901/metrics | grep -c '^sluice_target_healthy{.*} 1$')" = "$1" ] && return
    rest 0.1
  done
  echo "waited in vain for $1 healthy targets" >&2; exit 1
}
# Twenty requests: how many had which status, by whom.
ask() {
  for _ in $(seq 20); do
    curl -s -m 5 -w '\n%{http_code}\n' http://127.0.0.1:8080/orders/1 | awk '
      match($0, /"name": ?"[a-z0-9-]*"/) { who = substr($0, RSTART, RLENGTH); gsub(/"name": ?|"/, "", who) }
      { last = $0 } END { print last, (who ? "from " who : "by the gateway itself") }'
  done | sort | uniq -c | sed 's/^ */    /'
}
say() { printf '\n%s\n' "$1"; }

for n in 1 2 3; do begin "300$n" "orders-$n"; done
begin 3004 archive
"$sluice" run conf/resilience.yaml >/dev/null 2>&1 & place[gateway]=$!
await http://127.0.0.1:9901/readyz
healthy 4
say "Everything works:"; ask
break_it orders-1
say "orders-1 is gone, and nobody has noticed yet:"; ask
healthy 3
say "its checks have failed, it gets nothing any more:"; ask
break_it orders-2
say "orders-2 is gone, too:"; ask
break_it orders-3
say "all of orders is gone; the archive takes over:"; ask
healthy 1
say "and goes on once the checks have failed:"; ask
break_it archive
healthy 0
say "the archive is gone: a refusal that says why, and that is all:"; ask
for n in 1 2 3; do begin "300$n" "orders-$n"; done
begin 3004 archive
healthy 4
# The circuit is probed two seconds after it opened.
for _ in $(seq 100); do curl -s http://127.0.0.1:8080/orders/1 | grep -q '"orders-' && break; rest 0.1; done
say "all of them are back:"; ask

#!/usr/bin/env bash
# Serves conf/cluster on this machine: HAProxy before three gateways, a Redis and a small upstream. Ctrl-C stops all of it.
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=$PWD/${1:-target/release/sluice}
missing=()
for pair in haproxy:haproxy redis-server:redis-server curl:curl; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
[ ${#missing[@]} -eq 0 ] || { echo "please install: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2; exit 1; }
mkdir -p target/cluster
here=$PWD/target/cluster
operator='redis-cli -p 6390 --user operator --pass operator-password-for-trying-out --no-auth-warning'
pids=()
stop() {
  trap - EXIT INT TERM
  kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 0' INT TERM
# Waits until somebody answers, or says whose log tells why not.
await() {
  for _ in $(seq 150); do
    curl -sf -o /dev/null "http://127.0.0.1:$1" && return
    read -rt 0.1 <> <(:) || true
  done
  echo "nobody answers at 127.0.0.1:$1: see $2" >&2
  tail -n 3 "$2" >&2
  exit 1
}
# A gateway that ends is started again two seconds later, as systemd would.
keep() { # NAME PORT ADMIN
  child=
  trap '[ -z "$child" ] || kill "$child" 2>/dev/null; wait; exit 0' TERM
  trap '' INT
  while true; do
    SLUICE_STATE=$here/state-$1 SLUICE_NAME=$1 SLUICE_PORT=$2 SLUICE_ADMIN=$3 "$sluice" run conf/cluster >>"$here/$1.log" 2>&1 & child=$!
    echo "$child" >"$here/$1.pid"
    wait "$child" || true
    child=
    sleep 2
  done
}
redis-server conf/cluster/redis.conf >"$here/redis.log" & pids+=($!)
# A list is begun with a member that says nothing.
for _ in $(seq 50); do $operator SADD cluster:revoked "" >/dev/null 2>&1 && break; read -rt 0.1 <> <(:) || true; done
"$sluice" echo --address 127.0.0.1:3001 --name orders 2>"$here/orders.log" & pids+=($!)
await 3001/healthz "$here/orders.log"
"$sluice" test conf/cluster
keep one 8081 9901 & pids+=($!)
keep two 8082 9902 & pids+=($!)
keep three 8083 9903 & pids+=($!)
for gateway in one:9901 two:9902 three:9903; do await "${gateway#*:}/readyz" "$here/${gateway%:*}.log"; done
haproxy -db -f conf/cluster/haproxy.cfg >"$here/haproxy.log" 2>&1 & pids+=($!)
await 8080/open/1 "$here/haproxy.log"
cat <<LINES

HAProxy serves http://127.0.0.1:8080 before the gateways one, two and three. Their logs are in target/cluster. Paste these into another
terminal, in this folder; Ctrl-C here stops all of it.

# who answers: one after the other
for i in 1 2 3 4 5 6; do curl -si http://127.0.0.1:8080/open/1 | grep -i x-gateway; done
# the client's address is the client's, whoever answers
curl -s --interface 127.0.0.7 http://127.0.0.1:8080/open/1 | grep -io '"x-forwarded-for", *"[^"]*"'
# thirty in an hour at all of them together, not ninety
for i in \$(seq 45); do curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/orders/1 -H 'x-api-key: sk_quickstart_00000000000000000000000000'; done | sort | uniq -c
# a token means the same at each
for i in 1 2 3; do curl -s -o /dev/null -w '%{http_code} %header{x-gateway}\n' http://127.0.0.1:8080/orders/1 -H 'authorization: Bearer $(cat conf/cluster/token)'; done
# until whose it is is revoked; then try the line above again
$operator SADD cluster:revoked '{"sub": "ada", "before": "2099-01-01T00:00:00Z", "reason": "left"}'; $operator PUBLISH cluster:revoked now
# one is killed, and nobody notices but those whom it was answering; it is back two seconds later
kill -9 \$(cat target/cluster/two.pid); for i in \$(seq 30); do curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/open/1; done | sort | uniq -c

LINES
wait

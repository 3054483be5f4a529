#!/usr/bin/env bash
# Serves conf/quickstart.yaml before two small upstreams, all of them the same binary. Ctrl-C stops all of it.
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=${1:-target/release/sluice}
pids=()
stop() { trap - EXIT INT TERM; kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; }
trap stop EXIT
trap 'exit 0' INT TERM
"$sluice" echo --address 127.0.0.1:3001 --name orders & pids+=($!)
"$sluice" echo --address 127.0.0.1:3002 --name accounts & pids+=($!)
# Waits until somebody answers, or ends where process $2 has.
await() {
  for _ in $(seq 100); do
    curl -sf -o /dev/null "http://127.0.0.1:$1" && return
    kill -0 "$2" 2>/dev/null || { wait "$2"; exit $?; }
    read -rt 0.1 <> <(:) || true
  done
}
# First: a target that does not answer its first health check is out until the next one.
await 3001/healthz "${pids[0]}"
await 3002/healthz "${pids[1]}"
"$sluice" run conf/quickstart.yaml & pids+=($!)
await 9901/readyz "${pids[2]}"
cat <<'LINES'

Sluice serves http://127.0.0.1:8080. Paste these into another terminal; Ctrl-C here stops all of it.

# passes: a key that may read
curl -i http://127.0.0.1:8080/orders/1 -H 'x-api-key: sk_quickstart_00000000000000000000000000'
# 401: nobody says who calls
curl -i http://127.0.0.1:8080/orders/1
# 403: a person who may read, not create
curl -i -X POST http://127.0.0.1:8080/orders -H 'authorization: Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InF1aWNrc3RhcnQifQ.eyJpc3MiOiJxdWlja3N0YXJ0IiwiYXVkIjoicXVpY2tzdGFydCIsInN1YiI6ImFkYSIsInNjb3BlIjoib3JkZXJzOnJlYWQiLCJleHAiOjQxMDI0NDQ4MDB9.MEMQXYG_TALcxpQSdao4NQShjs87MXwH66lJ9aC1llGwXMQn0VKW8QB26Uz6-hl0R1VjN1NUJf8I9wH8jmlm6w'
# 429: five sign-ins in five minutes, not six
curl -s -o /dev/null -w '%{http_code}\n' 'http://127.0.0.1:8080/sign-in?[1-6]'

LINES
wait "${pids[2]}"

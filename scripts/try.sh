#!/usr/bin/env bash
# Serves conf/partners.yaml, tiers.yaml or agents.yaml before two small upstreams, and prints lines to paste. Ctrl-C stops all of it.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
sluice=${2:-target/release/sluice}
pids=()
stop() { trap - EXIT INT TERM; kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; }
trap stop EXIT
trap 'exit 0' INT TERM
# Waits until somebody answers, or ends where process $2 has.
await() {
  for _ in $(seq 100); do
    curl -s -o /dev/null "http://127.0.0.1:$1" && return
    kill -0 "$2" 2>/dev/null || { wait "$2"; exit $?; }
    read -rt 0.1 <> <(:) || true
  done
}
# A token of the provider's, good for an hour: the private half of the key `example-ec` in conf/keys/jwks.json is a test's.
token() { # MORE CLAIMS
  local now signed numbers
  now=$(date +%s)
  base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
  signed=$(printf '{"alg":"ES256","typ":"JWT","kid":"example-ec"}' | base64url).$(printf '{"iss":"https://idp.example","aud":"api","iat":%s,"exp":%s,%s}' "$now" $((now + 3600)) "$1" | base64url)
  # A signature of JWS is two numbers of 32 bytes, not DER (RFC 7518 section 3.4).
  numbers=$(printf '%s' "$signed" | openssl dgst -sha256 -sign tests/fixtures/keys/example-ec.for-tests-only.pem | openssl asn1parse -inform DER | sed -n 's/.*INTEGER *://p' |
    while read -r number; do printf '%64s' "$number" | tr ' ' 0; done | sed 's/../\\x&/g')
  printf '%s.%s' "$signed" "$(printf '%b' "$numbers" | base64url)"
}
"$sluice" test "conf/$name.yaml"
"$sluice" echo --address 127.0.0.1:3001 --name one & pids+=($!)
"$sluice" echo --address 127.0.0.1:3002 --name two & pids+=($!)
await 3001/ "${pids[0]}"
await 3002/ "${pids[1]}"
"$sluice" run "conf/$name.yaml" & pids+=($!)
await 8080/ "${pids[2]}"
printf '\nSluice serves http://127.0.0.1:8080. Paste these into another terminal; Ctrl-C here stops all of it.\n\n'
status="curl -s -o /dev/null -w '%{http_code}\\n'"
case $name in
  partners) cat <<LINES
# who has moved to v2 gets it, who has not gets v1
curl -s http://127.0.0.1:8080/orders -H 'x-api-key: globex-key-for-trying-out'
curl -s http://127.0.0.1:8080/orders -H 'x-api-key: initech-key-for-trying-out'
# the next key of the same partner is good already
curl -s http://127.0.0.1:8080/orders -H 'x-api-key: initech-next-key-for-trying-out'
# what is left of the thousand of this hour
curl -si http://127.0.0.1:8080/orders -H 'x-api-key: initech-key-for-trying-out' | grep -i ratelimit
# 401: nobody says who calls
curl -i http://127.0.0.1:8080/orders
# 429 quota-exceeded: the thousand of this hour are used up, for both keys
$status 'http://127.0.0.1:8080/orders?[1-1000]' -H 'x-api-key: initech-key-for-trying-out' | sort | uniq -c
curl -s http://127.0.0.1:8080/orders -H 'x-api-key: initech-next-key-for-trying-out'
LINES
    ;;
  tiers)
    free=$(token '"sub":"ada"') pro=$(token '"sub":"bob","tier":"pro"')
    cat <<LINES
# free: sixty in a minute, not seventy
$status 'http://127.0.0.1:8080/api/x?[1-70]' -H 'authorization: Bearer $free' | sort | uniq -c
# pro: ten times that
$status 'http://127.0.0.1:8080/api/x?[1-70]' -H 'authorization: Bearer $pro' | sort | uniq -c
# 403: reports are for those who pay; and one who does
curl -s http://127.0.0.1:8080/api/reports/1 -H 'authorization: Bearer $free'
curl -s http://127.0.0.1:8080/api/reports/1 -H 'authorization: Bearer $pro'
LINES
    ;;
  agents)
    person=$(token '"sub":"ada"') agent=$(token '"sub":"ada","kind":"agent","jti":"a-1"') wild=$(token '"sub":"ada","kind":"agent","jti":"0c7a9e1e"')
    cat <<LINES
# a person may ask often
$status 'http://127.0.0.1:8080/api/search?[1-40]' -H 'authorization: Bearer $person' | sort | uniq -c
# an agent of the same person may not: ten at once
$status 'http://127.0.0.1:8080/api/search?[1-40]' -H 'authorization: Bearer $agent' | sort | uniq -c
# 403: an agent pays nothing
curl -s http://127.0.0.1:8080/api/payments -H 'authorization: Bearer $agent'
# 401: an agent that ran wild, whose token was revoked
curl -s http://127.0.0.1:8080/api/search -H 'authorization: Bearer $wild'
LINES
    ;;
  *) echo "try.sh: partners, tiers or agents" >&2; exit 2 ;;
esac
echo
wait "${pids[2]}"

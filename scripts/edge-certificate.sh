#!/usr/bin/env bash
# Makes what conf/edge.yaml needs to be tried out, unless it is there: an authority, a certificate for localhost, and one for a client.
set -euo pipefail
cd "$(dirname "$0")/../conf"
[ -f edge/main.pem ] && exit 0
# Made aside and moved as a whole, so that nobody sees half of it.
mkdir -p ../target
made=$(mktemp -d "$PWD/../target/edge.XXXXXX")
trap 'rm -rf "$made"' EXIT
cd "$made"
sign() { # NAME SUBJECT EXTENSIONS
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out "$1.pem" -extfile <(printf '%s\n' "$3")
  rm "$1.csr"
}
{
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 365 -subj '/CN=Sluice try-out CA' \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
  sign main /CN=localhost 'subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1'
  sign client '/O=Example/CN=client' 'extendedKeyUsage=clientAuth'
} 2>openssl.log || { cat openssl.log >&2; exit 1; }
rm openssl.log ca.srl
cd ../../conf
mv -nT "$made" edge 2>/dev/null || true
[ -f edge/main.pem ]

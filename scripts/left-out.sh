#!/usr/bin/env bash
# The end of `make test`: says which tests were left out, and how to get them. FILE: what the root conftest.py gathered.
set -euo pipefail
[ -s "$1" ] || { echo "== all tests have run and passed; none was left out"; exit 0; }
bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
echo
echo "${bold}== What ran has passed, but NOT ALL HAS RUN. Left out:${plain}"
awk -F ' tests: ' '{sub(/^LEFT OUT, /, "", $2); count[$2] += $1} END {for (why in count) printf "   %d tests: %s\n", count[why], why}' "$1"

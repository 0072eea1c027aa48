#!/usr/bin/env bash
# What the images of gateway and controller hold beside their base: the package and its locked dependencies in a
# virtual environment at /opt/cloudach, compiled. The Dockerfiles run it, and so does the test on a real node.
#   scripts/image-root.sh PACKAGE DEST [EXTRA]…    e.g. cloudach-gateway /image helm-test
#   UV=PATH          the uv to use (default: uv on the path)
#   UV_PYTHON=PATH   the interpreter of the image's base, as it is called there (default: python3.11)
# The environment can be moved to wherever that interpreter is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=${1:?PACKAGE}
dest=$(realpath -m "${2:?DEST}")
shift 2
uv=$(command -v "${UV:-uv}") || { echo "image-root: uv is missing; name it with UV=…" >&2; exit 1; }
export UV_PROJECT_ENVIRONMENT=$dest/opt/cloudach UV_LINK_MODE=copy UV_PYTHON=${UV_PYTHON:-python3.11}

"$uv" venv --quiet --relocatable --clear "$UV_PROJECT_ENVIRONMENT"
"$uv" sync --quiet --frozen --no-dev --no-editable --compile-bytecode --package "$package" "${@/#/--extra=}"
# Not needed to run it: headers, the installer's leavings, and activation scripts for shells that are not there.
rm -rf "$UV_PROJECT_ENVIRONMENT"/{include,share,.gitignore,.lock} "$UV_PROJECT_ENVIRONMENT"/bin/{activate*,deactivate*,pydoc*}

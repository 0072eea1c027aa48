"""The chart as `helm template` renders it, as objects.

objects = render({"gateway": {"replicas": 3}})
objects.get("Deployment", "gateway")["spec"]["replicas"]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from .kubectl import tool
from .processes import ROOT

CHART = ROOT / "charts" / "cloudach"
RELEASE = "demo"
NAMESPACE = "serving"
NAME = f"{RELEASE}-cloudach"
VERSION: str = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
"""Of the project, which the images are tagged with."""
_RELEASED = ROOT.glob("tests/charts/released/cloudach-[0-9]*.tgz")
RELEASED = max(_RELEASED, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
"""The chart of the version before this one, as it was released; and its CRDs."""
RELEASED_CRDS = RELEASED.with_name(RELEASED.name.replace("cloudach-", "cloudach-crds-"))

Object = dict[str, Any]


class HelmFailed(Exception):
    """What helm says when it refuses."""


class Objects:
    """Rendered objects, in helm's order."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self._objects = list(objects)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def all(self, kind: str) -> list[Object]:
        return [one for one in self._objects if one["kind"] == kind]

    def names(self, kind: str) -> list[str]:
        return [one["metadata"]["name"] for one in self.all(kind)]

    def get(self, kind: str, part: str) -> Object:
        """The one of this kind that is called `part`, or demo-cloudach-`part`. Raises LookupError."""
        found = [one for one in self.all(kind) if one["metadata"]["name"] in (part, f"{NAME}-{part}")]
        if len(found) != 1:
            raise LookupError(f"{len(found)} of {kind} {part}; there are {self.names(kind)}")
        return found[0]

    def pod(self, part: str) -> Object:
        """The pod spec of the Deployment, StatefulSet, Job or Pod `part`."""
        spec: Object = pod_template(self._workload(part))["spec"]
        return spec

    def container(self, part: str) -> Object:
        """The first container of that pod."""
        first: Object = self.pod(part)["containers"][0]
        return first

    def env(self, part: str) -> dict[str, Any]:
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in self.container(part)["env"]}

    def config(self, part: str) -> Any:
        """The YAML configuration in the ConfigMap `part`."""
        return yaml.safe_load(self.get("ConfigMap", part)["data"][f"{part}.yaml"])

    def _workload(self, part: str) -> Object:
        for kind in WORKLOADS:
            if any(name in (part, f"{NAME}-{part}") for name in self.names(kind)):
                return self.get(kind, part)
        raise LookupError(f"no workload {part}")


WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")


def pod_template(workload: Object) -> Object:
    """The part that has a pod's metadata and spec."""
    return workload if workload["kind"] == "Pod" else workload["spec"]["template"]


def render(
    values: Mapping[str, Any] | None = None,
    *,
    arguments: Sequence[str] = ("--set", "preflight=false"),
    kube_version: str = "1.37.0",
) -> Objects:
    """Raises HelmFailed."""
    return Objects([one for one in yaml.safe_load_all(template(values, arguments, kube_version)) if one])


def template(values: Mapping[str, Any] | None, arguments: Sequence[str] = (), kube_version: str = "1.37.0") -> str:
    command = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", kube_version]
    return helm([*command, "--values", "-", *arguments], stdin=json.dumps(values or {}))


def helm(
    arguments: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 60
) -> str:
    """What it prints. Raises HelmFailed."""
    done = subprocess.run(
        [tool("helm"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise HelmFailed(done.stderr)
    return done.stdout

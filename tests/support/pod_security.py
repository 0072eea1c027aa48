"""Pod Security "restricted", as kubernetes.io/docs/concepts/security/pod-security-standards states it: pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_KINDS = ("initContainers", "containers", "ephemeralContainers")


def violations(pod: dict[str, Any]) -> list[str]:
    """What a pod's spec does that "restricted" forbids, as `field: why`; empty when nothing."""
    return [
        *_of_pod(pod),
        *(found for kind in _KINDS for one in pod.get(kind, []) for found in _of_container(pod, one)),
    ]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for name in _HOST:
        if pod.get(name):
            yield f"{name}: shares the host's"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if kinds - _VOLUMES:
            yield f"volumes.{volume['name']}: {', '.join(sorted(kinds - _VOLUMES))} is not allowed"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "securityContext.sysctls: set"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    where = f"{container['name']}.securityContext"
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    if own.get("privileged"):
        yield f"{where}.privileged: true"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{where}.allowPrivilegeEscalation: not false"
    if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
        yield f"{where}.runAsNonRoot: not true"
    if own.get("runAsUser", shared.get("runAsUser")) == 0:
        yield f"{where}.runAsUser: 0 is root"
    profile = own.get("seccompProfile", shared.get("seccompProfile", {})).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield f"{where}.seccompProfile: {profile}"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{where}.capabilities.drop: not ALL"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{where}.capabilities.add: {capabilities['add']}"
    if own.get("procMount", "Default") != "Default":
        yield f"{where}.procMount: {own['procMount']}"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{container['name']}.ports: hostPort {port['hostPort']}"

"""What an operator does with Models, and what they then see."""

from __future__ import annotations

from typing import Any

from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kubectl import Kubectl
from tests.support.kuberay.paper import PATIENCE_S
from tests.support.objects import Objects
from tests.support.waiting import until


def model(name: str = "sim", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cloudach.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"source": {"simulator": {}}, **spec},
    }


PLURALS = {
    "lease": "leases",
    "model": "models",
    "modeluse": "modeluses",
    "networkpolicy": "networkpolicies",
    "poddisruptionbudget": "poddisruptionbudgets",
    "rayservice": "rayservices",
    "secret": "secrets",
}


class Shop:
    """What an operator does and sees."""

    def __init__(self, cluster: Cluster) -> None:
        self.kubectl: Kubectl = cluster.kubectl
        self._objects = Objects(cluster, NAMESPACE)

    def apply(self, obj: dict[str, Any], *flags: str) -> None:
        self.kubectl.apply(obj, flags=("--validate=false", *flags))

    def run(self, *arguments: str) -> str:
        return self.kubectl("-n", NAMESPACE, *arguments)

    def get(self, kind: str, name: str = "sim") -> dict[str, Any]:
        """Empty when it is not there."""
        return self._objects.get(PLURALS[kind], name)

    def status(self, name: str = "sim") -> dict[str, Any]:
        return self.get("model", name).get("status") or {}

    def condition(self, kind: str, name: str = "sim") -> str:
        found = [one for one in self.status(name).get("conditions") or [] if one["type"] == kind]
        return f"{found[0]['status']} {found[0]['reason']}: {found[0]['message']}" if found else ""

    def events(self, name: str = "sim", *, reason: str) -> list[dict[str, Any]]:
        """Of the Model that is there now; they are written after the status that they tell of."""
        uid = self.get("model", name)["metadata"]["uid"]
        return self._objects.items("events", fieldSelector=f"involvedObject.uid={uid},reason={reason}")

    def state(
        self, wanted: str, name: str = "sim", *, ready: int | None = None, within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            now = self.status(name)
            good = now.get("state") == wanted and (ready is None or now.get("readyReplicas") == ready)
            return now if good else None

        what = f"{name} {wanted} with {ready} ready replicas"
        return until(reached, what, within_s=within_s)

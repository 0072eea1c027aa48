"""The chart's manifests with all that can be switched on."""

from __future__ import annotations

from functools import cache

import kubernetes_validate

from tests.support.helm import Object, Objects, render
from tests.support.release import MODEL_SPEC

MINORS = list(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-3:]  # it lists each twice


EVERYTHING = {
    "models": [{"name": "m", "spec": MODEL_SPEC}],
    "priorityClasses": {"create": True},
    "gateway": {"autoscaling": {"kind": "hpa"}},
    "ingress": {"enabled": True, "tls": {"enabled": True, "clusterIssuer": "le"}},
    "gatewayApi": {"enabled": True, "gateway": {"create": True, "className": "envoy", "tlsSecretName": "cert"}},
    "firstKey": {"create": True},
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}


_FOREIGN = {"cloudach.dev", "gateway.networking.k8s.io", "monitoring.coreos.com", "keda.sh"}


@cache
def everything(minor: str = "1.37") -> Objects:
    return render(EVERYTHING, kube_version=f"{minor}.0")


def built_in(objects: Objects) -> list[Object]:
    return [one for one in objects if one["apiVersion"].partition("/")[0] not in _FOREIGN]


def workloads(objects: Objects) -> list[Object]:
    return [one for one in objects if one["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]

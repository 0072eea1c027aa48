"""Kubeconfigs of the service accounts that the chart gives its programs."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import yaml

from tests.support.kube import Cluster

NAMESPACE = "serving"


ACCOUNT = "demo-cloudach-controller"


def kubeconfig_of(cluster: Cluster, account: str, namespace: str = NAMESPACE) -> Path:
    """With a service account of the namespace."""
    token = cluster.kubectl("create", "token", account, "-n", namespace, "--duration=2h").strip()
    authority = b64encode((cluster.home / "pki/ca.crt").read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": cluster.url, "certificate-authority-data": authority}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    path = cluster.home / f"{account}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path

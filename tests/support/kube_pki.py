"""Throw-away certificates of a Kubernetes control plane."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

_CLIENTS = {
    # file: (user, group)
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", "none"),
    "scheduler": ("system:kube-scheduler", "none"),
    "front-proxy": ("front-proxy", "none"),
}


def write_pki(folder: Path) -> None:
    """Writes ca.crt, apiserver.{crt,key}, a pair for each client of _CLIENTS, and sa.{key,pub} for service accounts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.crt")
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    _write(folder, "apiserver", ca.issue_cert("127.0.0.1", "10.0.0.1", *names, common_name="kube-apiserver"))
    for file, (user, group) in _CLIENTS.items():
        _write(folder, file, ca.issue_cert("client.invalid", common_name=user, organization_name=group))
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "sa.pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _write(folder: Path, file: str, cert: trustme.LeafCert) -> None:
    cert.private_key_pem.write_to_path(folder / f"{file}.key")
    (folder / f"{file}.crt").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))

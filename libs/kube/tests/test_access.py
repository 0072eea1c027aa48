"""How the API server is found, and what is said where it is not."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cloudach_kube.access import Access, AccessError


def kubeconfig(folder: Path, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Path:
    path = folder / "config"
    content = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "there", "context": {"cluster": "d", "user": "u"}},
            {"name": "nowhere", "context": {"cluster": "x", "user": "u"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://one:6443/", **(cluster or {})}},
            {"name": "d", "cluster": {"server": "https://two"}},
        ],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_contexts(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    assert Access.find(path).url == "https://one:6443"
    assert Access.find(path, "there").url == "https://two"


def test_certificates_in_the_file_and_beside_it(tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("gateway@example.com")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "me.crt").write_bytes(chain)
    certificate.private_key_pem.write_to_path(tmp_path / "me.key")

    def data(raw: bytes) -> str:
        return base64.b64encode(raw).decode()

    inside = Access.find(
        kubeconfig(
            tmp_path,
            {"certificate-authority-data": data(ca.cert_pem.bytes())},
            {
                "client-certificate-data": data(chain),
                "client-key-data": data(certificate.private_key_pem.bytes()),
            },
        )
    )
    beside = Access.find(
        kubeconfig(
            tmp_path, {"certificate-authority": "ca.crt"}, {"client-certificate": "me.crt", "client-key": "me.key"}
        )
    )
    for found in (inside, beside):
        assert len(found.tls.get_ca_certs()) == 1, "the system's authorities have no say"


def test_a_pod_reads_its_token_anew(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("one\n")
    found = Access.of_pod(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert found.url == "https://[fd00::1]:443"
    assert found.bearer() == "one"
    (tmp_path / "token").write_text("two")
    assert found.bearer() == "two"


def test_no_pod_and_no_token(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="set kubeconfig"):
        Access.of_pod(tmp_path, {})
    with pytest.raises(AccessError, match="automountServiceAccountToken"):
        Access.of_pod(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})


@pytest.mark.parametrize(
    ("cluster", "user", "context", "said"),
    [
        ({}, {"exec": {"command": "aws"}}, None, "logs in by 'exec'"),
        ({}, {"auth-provider": {}}, None, "logs in by 'auth-provider'"),
        ({"server": "10.0.0.1"}, {}, None, "no server URL"),
        ({"certificate-authority": "missing.crt"}, {}, None, "certificates"),
        ({"certificate-authority-data": "bm8="}, {}, None, "certificates"),
        ({}, {}, "nowhere", "no cluster 'x'"),
        ({}, {}, "other", "no context 'other'"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], context: str | None, said: str
) -> None:
    with pytest.raises(AccessError, match=said):
        Access.find(kubeconfig(tmp_path, cluster, user), context)


def test_a_token_that_would_break_the_request_is_refused(tmp_path: Path) -> None:
    assert Access.find(kubeconfig(tmp_path, user={"token": "abc\n"})).bearer() == "abc"
    with pytest.raises(AccessError, match="U\\+000D"):
        Access.find(kubeconfig(tmp_path, user={"token": "abc\r\nx: y"}))
    (tmp_path / "token").write_text("sécret")
    with pytest.raises(AccessError, match="cannot be sent"):
        Access.find(kubeconfig(tmp_path, user={"tokenFile": "token"})).bearer()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot read"):
        Access.find(tmp_path / "missing")
    (tmp_path / "list").write_text("- a")
    with pytest.raises(AccessError, match="no kubeconfig"):
        Access.find(tmp_path / "list")

"""Access tells where the API server is and how we prove who we are: by a kubeconfig, or by our pod's service
account.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(Exception):
    """The API server cannot be asked; the message says which file or field is at fault."""


@dataclass(frozen=True)
class Access:
    """One way to an API server. `token_file` is read for every request, because Kubernetes replaces a pod's token
    before it expires.
    """

    url: str
    tls: ssl.SSLContext
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None

    @classmethod
    def find(cls, kubeconfig: Path | None, context: str | None = None) -> Access:
        """Takes the kubeconfig where there is one, and else the service account of our pod. Raises AccessError."""
        return cls.of_pod() if kubeconfig is None else cls.of_kubeconfig(kubeconfig, context)

    @classmethod
    def of_pod(cls, folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Access:
        """Reads what Kubernetes puts into a pod. Raises AccessError."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise AccessError("kubernetes: this is no pod (KUBERNETES_SERVICE_HOST is not set): set kubeconfig")
        token = folder / "token"
        if not token.is_file():
            raise AccessError(f"kubernetes: {token} is missing: the pod needs automountServiceAccountToken")
        tls = _tls({"certificate-authority": "ca.crt"}, {}, folder)
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, token_file=token)

    @classmethod
    def of_kubeconfig(cls, path: Path, context: str | None = None) -> Access:
        """Reads certificates, tokens and token files, and refuses other ways of login. Raises AccessError."""
        try:
            config = yaml.safe_load(path.read_text("utf-8"))
        except UnicodeDecodeError as error:
            raise AccessError(f"kubernetes.kubeconfig: {path} is not UTF-8") from error
        except OSError as error:
            raise AccessError(f"kubernetes.kubeconfig: cannot read {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise AccessError(f"kubernetes.kubeconfig: {path} is not YAML: {error}") from error
        if not isinstance(config, dict):
            raise AccessError(f"kubernetes.kubeconfig: {path} is no kubeconfig")
        name = context or config.get("current-context")
        if not name:
            raise AccessError(f"kubernetes.context: {path} has no current-context: name one")
        chosen = _named(config, "contexts", "context", name, path)
        cluster = _named(config, "clusters", "cluster", chosen.get("cluster"), path)
        user = _named(config, "users", "user", chosen["user"], path) if chosen.get("user") else {}
        if refused := {"exec", "auth-provider", "username"} & set(user):
            raise AccessError(
                f"kubernetes.kubeconfig: {path} logs in by {refused.pop()!r}, which is not supported here: "
                "use a certificate, a token or a tokenFile"
            )
        url = cluster.get("server")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise AccessError(f"kubernetes.kubeconfig: {path}: cluster {chosen.get('cluster')!r} has no server URL")
        token_file = _file(user.get("tokenFile"), path.parent)
        tls = _tls(cluster, user, path.parent)
        token = user.get("token")
        return cls(url.rstrip("/"), tls, token=_token(token, path) if token else None, token_file=token_file)

    def bearer(self) -> str | None:
        """Returns the token to send, or None where a certificate or nothing proves who we are. Raises AccessError."""
        if self.token_file is None:
            return self.token
        try:
            text = self.token_file.read_text("latin-1")
        except OSError as error:
            raise AccessError(f"cannot read {self.token_file}: {error.strerror}") from error
        return _token(text, self.token_file)


def _token(token: object, path: Path) -> str:
    """Returns the token as a header holds it. A file often ends in a newline."""
    text = str(token).strip()
    for character in text:
        if not "!" <= character <= "~":  # as the API server's own are, and as headers hold them
            raise AccessError(f"kubernetes: the token of {path} cannot be sent: it has a U+{ord(character):04X}")
    return text


def _named(config: Mapping[str, Any], group: str, kind: str, name: object, path: Path) -> dict[str, Any]:
    for entry in config.get(group) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
            found: dict[str, Any] = entry[kind]
            return found
    raise AccessError(f"kubernetes.kubeconfig: {path} has no {kind} {name!r}")


def _file(name: str | None, folder: Path) -> Path | None:
    return None if name is None else folder / name


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=_file(cluster.get("certificate-authority"), folder),
            cadata=_pem(cluster, "certificate-authority-data"),
        )
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = _pem(user, "client-certificate-data"), _pem(user, "client-key-data")
        if certificate is not None and key is not None:
            # OpenSSL takes them from files alone.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
                both.write(f"{certificate}\n{key}\n")
                both.flush()
                context.load_cert_chain(both.name)
        elif user.get("client-certificate"):
            key_file = _file(user.get("client-key"), folder)
            context.load_cert_chain(folder / user["client-certificate"], key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError, binascii.Error a ValueError
        raise AccessError(f"kubernetes: the certificates of {folder} cannot be used: {error}") from error
    return context


def _pem(part: Mapping[str, Any], name: str) -> str | None:
    value = part.get(name)
    return None if value is None else b64decode(value, validate=False).decode("ascii")

"""Requests to the API server, with plain dicts: the few verbs that a controller needs, for any kind."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from cloudach_model_api.names import GROUP, MANAGER, PLURAL, USE_PLURAL, VERSION
from kubernetes_asyncio import client as k8s
from kubernetes_asyncio import config as k8s_config

from .errors import Gone, KubeError, Unreachable, from_status

Object = dict[str, Any]

_MESSAGE_LENGTH = 2000  # admission webhooks say what they like
_WATCH_S = 290  # then the watch is begun anew, before proxies take it for dead


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts: list[str] = [root, *(["namespaces", namespace] if namespace else []), self.plural, name, sub]
        return "/".join(part for part in parts if part)


MODELS = Kind(GROUP, VERSION, PLURAL)
MODEL_USES = Kind(GROUP, VERSION, USE_PLURAL)
RAY_SERVICES = Kind("ray.io", "v1", "rayservices")
RAY_CLUSTERS = Kind("ray.io", "v1", "rayclusters")
PODS = Kind("", "v1", "pods")
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies")
DISRUPTION_BUDGETS = Kind("policy", "v1", "poddisruptionbudgets")
SECRETS = Kind("", "v1", "secrets")
EVENTS = Kind("", "v1", "events")
NAMESPACES = Kind("", "v1", "namespaces")
LEASES = Kind("coordination.k8s.io", "v1", "leases")


class KubeClient:
    """All methods raise KubeError."""

    def __init__(self, api: k8s.ApiClient, timeout_s: float) -> None:
        self._api = api
        self._timeout_s = timeout_s

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return await self._json("GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[Object], str]:
        """The objects, and the resourceVersion that a watch goes on from. `name`: only those that are called so."""
        query = _selection(selector, name)
        answer = await self._json("GET", kind.path(namespace), query=query)
        return answer.get("items") or [], str(answer["metadata"]["resourceVersion"])

    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, selector: str = "", name: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object), until the server ends it. Gone: `since` is too old."""
        query = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
            **_selection(selector, name),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=_WATCH_S + 30)
        async with self._answer("GET", kind.path(namespace), query=query, timeout=timeout) as answer:
            try:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise from_status(int(status.get("code") or 500), str(status.get("message")))
                    yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise Unreachable(0, f"the watch of {kind.plural} broke off: {error}") from error

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        return await self._json("POST", kind.path(namespace), body=body, content="application/json")

    async def replace(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """With the resourceVersion in `body`: Conflict when somebody was faster."""
        return await self._json("PUT", kind.path(namespace, name), body=body, content="application/json")

    async def apply(self, kind: Kind, namespace: str, name: str, body: Object, *, sub: str = "") -> Object:
        """Server-side apply under our own field manager; other writers' values in our fields give way."""
        return await self._json(
            "PATCH",
            kind.path(namespace, name, sub),
            query={"fieldManager": MANAGER, "force": "true"},
            body=body,
            content="application/apply-patch+yaml",
        )

    async def merge(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any], *, sub: str = "") -> Object:
        return await self._json(
            "PATCH", kind.path(namespace, name, sub), body=body, content="application/merge-patch+json"
        )

    async def patch(self, kind: Kind, namespace: str, name: str, operations: Sequence[Object]) -> Object:
        """A JSON patch. Refused when one of its tests fails."""
        return await self._json(
            "PATCH", kind.path(namespace, name), body=operations, content="application/json-patch+json"
        )

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        options = {"propagationPolicy": "Background"}
        await self._json("DELETE", kind.path(namespace, name), body=options, content="application/json")

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        async with self._answer("GET", PODS.path(namespace, pod, "log"), query=query) as answer:
            return (await answer.read()).decode(errors="replace")

    async def _json(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Object] | None = None,
        content: str | None = None,
    ) -> Object:
        async with self._answer(verb, path, query=query, body=body, content=content) as answer:
            try:
                found: Object = await answer.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise Unreachable(0, f"{verb} {path}: {error}") from error
            return found

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Object] | None = None,
        content: str | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers: dict[str, str] = {"Accept": "application/json"}
        params: list[tuple[str, str]] = list((query or {}).items())
        try:
            # The library's part: host, TLS and whatever proves who we are, renewed where it runs out.
            await self._api.update_params_for_auth(headers, params, ["BearerToken"])
            answer = await self._api.rest_client.pool_manager.request(
                verb,
                f"{self._api.configuration.host}{path}",
                params=params,
                data=None if body is None else json.dumps(body),
                headers={**headers, "Content-Type": content} if content else headers,
                timeout=timeout or aiohttp.ClientTimeout(total=self._timeout_s),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(0, f"the API server does not answer: {type(error).__name__}: {error}") from error
        async with answer:
            if answer.status >= 300:
                text = (await answer.read()).decode(errors="replace")
                raise from_status(answer.status, f"{verb} {path}: {_message(text)}")
            yield answer


def _selection(selector: str, name: str) -> dict[str, str]:
    """The name as a field selector: by it the API server lets rights that are tied to a name list and watch."""
    labels = {"labelSelector": selector} if selector else {}
    return labels | ({"fieldSelector": f"metadata.name={name}"} if name else {})


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])[:_MESSAGE_LENGTH]
    except (ValueError, KeyError, TypeError):
        return text[:500]


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path | None, timeout_s: float) -> AsyncIterator[KubeClient]:
    """Raises KubeError when there is no usable configuration; whether the server answers, is not asked."""
    configuration = k8s.Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            k8s_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(kubeconfig) if kubeconfig is not None else None
            await k8s_config.load_kube_config(path, client_configuration=configuration)
    except (k8s_config.ConfigException, OSError) as error:
        raise KubeError(0, f"kubernetes: no usable configuration: {error}") from error
    configuration.connection_pool_maxsize = 0  # no limit: each watch holds one for good, and a namespace has ten
    async with k8s.ApiClient(configuration) as api:
        yield KubeClient(api, timeout_s)


__all__ = [
    "DISRUPTION_BUDGETS",
    "EVENTS",
    "LEASES",
    "MODELS",
    "MODEL_USES",
    "NAMESPACES",
    "NETWORK_POLICIES",
    "PODS",
    "RAY_CLUSTERS",
    "RAY_SERVICES",
    "SECRETS",
    "Gone",
    "Kind",
    "KubeClient",
    "connect",
]

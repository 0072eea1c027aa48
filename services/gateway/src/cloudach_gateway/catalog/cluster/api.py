"""The few questions that a gateway has for an API server, over HTTP.

Not with a Kubernetes client package, which would double each process's memory (docs/adr/0008).
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any

import httpx
from cloudach_model_api import ModelUse, UseStatus, names

from .access import Access, AccessError

_PAGE = 500
# A server that vanished without a word is noticed within half a minute, though a watch may be silent for long.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
# Each watch holds a connection for good, and each namespace has two. httpx allows 100 unless it is told otherwise.
_AS_MANY_AS_WATCHES_NEED = httpx.Limits(max_connections=None, max_keepalive_connections=20)
_MANAGER = "cloudach-gateway"
_SERVE_SERVICES = "ray.io/serve"  # a label of theirs; which value it has is KubeRay's own affair

for _library in ("httpx", "httpcore"):  # they would tell of each question
    logging.getLogger(_library).setLevel(logging.WARNING)

Object = dict[str, Any]


class ApiError(Exception):
    """No answer, or a refusal. `status`: of HTTP, None without an answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Gone(ApiError):
    """What was asked for from this version on is no longer known: list anew."""


class Api:
    """The questions that a gateway has. All methods raise ApiError."""

    def __init__(self, access: Access, *, timeout_s: float) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=access.url,
            transport=httpx.AsyncHTTPTransport(
                verify=access.tls, socket_options=_KEEP_ALIVE, trust_env=False, limits=_AS_MANY_AS_WATCHES_NEED
            ),
            timeout=timeout_s,
            headers={"user-agent": _MANAGER, "accept": "application/json"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    def models(self, selector: str = "") -> Collection:
        return Collection(self, names.API_VERSION, names.PLURAL, selector)

    def endpoint_slices(self) -> Collection:
        """Those of the Services that KubeRay makes for serving. A Service's labels are on its EndpointSlices too."""
        return Collection(self, "discovery.k8s.io/v1", "endpointslices", _SERVE_SERVICES)

    async def use(self, namespace: str, name: str) -> UseStatus:
        """What gateways have last told of a Model's use."""
        return ModelUse.from_object(await self.ask("GET", _use(namespace, name))).status

    async def secret(self, namespace: str, name: str) -> Object:
        return await self.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")

    async def tell(self, namespace: str, name: str, use: UseStatus) -> None:
        """Writes the moments that are set; the others stay."""
        await self.ask(
            "PATCH",
            f"{_use(namespace, name)}/status",
            params={"fieldManager": _MANAGER},
            headers={"content-type": "application/merge-patch+json"},
            content=json.dumps(use.to_patch()),
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] | None = None,
        content: str | None = None,
    ) -> Object:
        with _translated():
            answer = await self._http.request(
                method, path, params=_given(params), headers={**self._who(), **(headers or {})}, content=content
            )
        if answer.status_code != 200:
            raise _refusal(answer)
        return _object(answer.content)

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_s: float
    ) -> AsyncIterator[AsyncIterator[tuple[str, Object]]]:
        """The events of a watch. silence_s: how long the server may say nothing."""
        timeout = httpx.Timeout(self._timeout_s, read=silence_s + self._timeout_s)
        with _translated():
            request = self._http.build_request("GET", path, params=_given(params), headers=self._who(), timeout=timeout)
            answer = await self._http.send(request, stream=True)
        try:
            if answer.status_code != 200:
                with _translated():
                    await answer.aread()
                raise _refusal(answer)
            async with aclosing(_events(answer)) as events:
                yield events
        finally:
            await answer.aclose()

    def _who(self) -> dict[str, str]:
        try:
            token = self._access.bearer()
        except AccessError as error:
            raise ApiError(str(error)) from error
        return {} if token is None else {"authorization": f"Bearer {token}"}


class Collection:
    """All objects of one kind, to be listed and watched. `namespace` None: those of all namespaces."""

    def __init__(self, api: Api, version: str, plural: str, selector: str) -> None:
        self._api = api
        self._version = version
        self._plural = plural
        self._selector = selector

    async def list(self, namespace: str | None) -> tuple[list[Object], str]:
        """All there are, and the version from which to watch on. Raises ApiError."""
        found: list[Object] = []
        page = ""
        while True:
            asked = {"limit": str(_PAGE), "labelSelector": self._selector, "continue": page}
            answer = await self._api.ask("GET", self._path(namespace), params=asked)
            found += answer.get("items") or []
            metadata = answer.get("metadata") or {}
            page = metadata.get("continue") or ""
            if not page:
                return found, str(metadata.get("resourceVersion", ""))

    def watch(
        self, namespace: str | None, version: str, *, seconds: float
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Object]]]:
        """Changes since `version`, as (ADDED | MODIFIED | DELETED | BOOKMARK, object), for about so many seconds.

        Raises ApiError.
        """
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
            "labelSelector": self._selector,
        }
        return self._api.stream(self._path(namespace), params=asked, silence_s=seconds)

    def _path(self, namespace: str | None) -> str:
        place = "" if namespace is None else f"/namespaces/{namespace}"
        return f"/apis/{self._version}{place}/{self._plural}"


def _use(namespace: str, name: str) -> str:
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.USE_PLURAL}/{name}"


def _given(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}


class _translated:
    """httpx's errors become ApiError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError | httpx.StreamError | httpx.InvalidURL | OSError):
            raise ApiError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


async def _events(answer: httpx.Response) -> AsyncGenerator[tuple[str, Object]]:
    rest = b""
    with _translated():
        # Not httpx's lines: it would cut at characters that JSON may hold, as U+0085.
        async for data in answer.aiter_bytes():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.strip():
                    yield _event(line)


def _event(line: bytes) -> tuple[str, Object]:
    event = _object(line)
    kind, changed = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(changed, dict):
        raise ApiError(f"no event of a watch: {line[:200]!r}")
    if kind == "ERROR":
        raise _error(changed.get("code"), str(changed.get("message") or changed))
    return kind, changed


def _object(data: bytes) -> Object:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ApiError(f"no JSON: {data[:200]!r}") from error
    if not isinstance(found, dict):
        raise ApiError(f"JSON, but no object: {data[:200]!r}")
    return found


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        message = str(_object(answer.content).get("message") or answer.reason_phrase)
    except ApiError:
        message = answer.text[:200] or answer.reason_phrase
    return _error(answer.status_code, message)


def _error(status: object, message: str) -> ApiError:
    code = status if isinstance(status, int) else None
    return (Gone if code == 410 else ApiError)(f"{code or 'error'}: {message}", status=code)

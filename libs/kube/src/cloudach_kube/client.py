"""The client sends requests to an API server, with plain dicts: the few verbs that a service needs, for any kind.

Every wait has a deadline: a request, each page of a list, the begin of a watch, and a watch as a whole.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import MappingProxyType
from typing import Any

from .errors import KubeError, Unreachable, from_status
from .kinds import PODS, Kind
from .transport import Answer, Transport

Object = dict[str, Any]
Event = tuple[str, Object]
"""ADDED, MODIFIED, DELETED or BOOKMARK, and the object as it is then."""

_PAGE = 500
_MESSAGE_LENGTH = 2000  # admission webhooks say what they like
_LONGEST_EVENT = 16 * 1024 * 1024  # etcd takes objects of 1.5 MiB
_WATCH_BEGIN_S = 30.0
"""A busy API server queues a watch for longer than an answer may take. Given up, it is not followed."""
_NONE: Mapping[str, str] = MappingProxyType({})


class KubeClient:
    """`manager` is the name under which our changes are noted in objects. All methods raise KubeError."""

    def __init__(self, transport: Transport, *, manager: str, timeout_s: float) -> None:
        self._transport = transport
        self._manager = manager
        self._timeout_s = timeout_s

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return await self._json("GET", kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", name: str = ""
    ) -> tuple[list[Object], str]:
        """Asks for the objects in pages. Returns them, and the resourceVersion that a watch goes on from.

        `name` leaves only the one that is called so.
        """
        path, found, page = kind.path(namespace), list[Object](), ""
        while True:
            query = {"limit": str(_PAGE), **({"continue": page} if page else {}), **_selection(selector, name)}
            answer = await self._json("GET", path, query=query)
            metadata, items = answer.get("metadata"), answer.get("items") or []
            version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
            if not isinstance(metadata, dict) or not isinstance(items, list) or not version:
                raise Unreachable(0, f"GET {path}: the answer is no list")
            found += items
            before, page = page, str(metadata.get("continue") or "")
            if not page:
                return found, str(version)
            if page == before:
                raise Unreachable(0, f"GET {path}: the same page came twice")

    @asynccontextmanager
    async def watch(
        self, kind: Kind, namespace: str | None, since: str, *, seconds: float, selector: str = "", name: str = ""
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Yields the changes since `since`, for about so many seconds. The watch stands once this has been entered.

        Raises Gone when the server does not remember `since`, and Unreachable when it does not end in time.
        """
        path, seconds = kind.path(namespace), max(1, round(seconds))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
            **_selection(selector, name),
        }
        begin_s = max(self._timeout_s, _WATCH_BEGIN_S)
        async with AsyncExitStack() as stack:
            async with _within(begin_s, f"GET {path}"):
                answer = await stack.enter_async_context(self._answer("GET", path, query=query))
            ends = asyncio.get_running_loop().time() + seconds + self._timeout_s
            chunks = await stack.enter_async_context(aclosing(_until(answer, ends, path)))
            yield await stack.enter_async_context(aclosing(_events(chunks, path)))

    async def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        return await self._json("POST", kind.path(namespace), body=body)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Puts `body` in the place of the object. Raises Conflict when its resourceVersion shows that somebody was
        faster.
        """
        return await self._json("PUT", kind.path(namespace, name), body=body)

    async def apply(self, kind: Kind, namespace: str, name: str, body: Object, *, sub: str = "") -> Object:
        """Applies our fields on the server, under our own field manager. Other writers' values in them give way."""
        query = {"fieldManager": self._manager, "force": "true"}
        path = kind.path(namespace, name, sub)
        return await self._json("PATCH", path, query=query, body=body, content="application/apply-patch+yaml")

    async def merge(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any], *, sub: str = "") -> Object:
        query, path = {"fieldManager": self._manager}, kind.path(namespace, name, sub)
        return await self._json("PATCH", path, query=query, body=body, content="application/merge-patch+json")

    async def patch(self, kind: Kind, namespace: str, name: str, operations: Sequence[Object]) -> Object:
        """Applies a JSON patch, which is refused when one of its tests fails."""
        query, path = {"fieldManager": self._manager}, kind.path(namespace, name)
        return await self._json("PATCH", path, query=query, body=operations, content="application/json-patch+json")

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        await self._json("DELETE", kind.path(namespace, name), body={"propagationPolicy": "Background"})

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        return (await self._read("GET", PODS.path(namespace, pod, "log"), query=query)).decode(errors="replace")

    async def _json(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] = _NONE,
        body: Any | None = None,
        content: str = "application/json",
    ) -> Object:
        return _object(await self._read(verb, path, query=query, body=body, content=content), f"{verb} {path}")

    async def _read(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] = _NONE,
        body: Any | None = None,
        content: str = "application/json",
    ) -> bytes:
        asked = self._answer(verb, path, query=query, body=body, content=content)
        async with _within(self._timeout_s, f"{verb} {path}"), asked as answer:
            return await answer.read()

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] = _NONE,
        body: Any | None = None,
        content: str = "application/json",
    ) -> AsyncIterator[Answer]:
        async with self._transport.send(verb, path, query=query, content=content, body=body) as answer:
            if answer.status >= 300:
                raise from_status(answer.status, f"{verb} {path}: {answer.status}: {_message(await answer.read())}")
            yield answer


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Unreachable(0, f"{what}: no answer within {seconds:g} s") from error


async def _until(answer: Answer, ends: float, path: str) -> AsyncGenerator[bytes]:
    """Yields the body as it comes, until that moment in the loop's time."""
    async with aclosing(answer.chunks()) as chunks:
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise Unreachable(0, f"the watch of {path} did not end when it should have") from error
            if chunk is None:
                return
            yield chunk


async def _events(chunks: AsyncIterator[bytes], path: str) -> AsyncGenerator[Event]:
    """Yields one event a line. Lines are cut at the newline alone, because JSON may hold other characters that end a
    line.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_EVENT:
            raise Unreachable(0, f"the watch of {path} sent an event of more than {_LONGEST_EVENT} bytes")
        for line in lines:
            if line.strip():
                yield _event(line, path)


def _event(line: bytes, path: str) -> Event:
    event = _object(line, f"the watch of {path}")
    kind, changed = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(changed, dict):
        raise Unreachable(0, f"the watch of {path} sent what is no event: {line[:200]!r}")
    if kind == "ERROR":
        code = changed.get("code")
        status = code if isinstance(code, int) else 500
        message = str(changed.get("message") or changed)[:_MESSAGE_LENGTH]
        raise from_status(status, f"the watch of {path}: {status}: {message}")
    return kind, changed


def _selection(selector: str, name: str) -> dict[str, str]:
    """Selects by labels and by the name. The API server lets rights that are tied to a name list and watch by this
    field selector alone.
    """
    labels = {"labelSelector": selector} if selector else {}
    return labels | ({"fieldSelector": f"metadata.name={name}"} if name else {})


def _object(data: bytes, what: str) -> Object:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Unreachable(0, f"{what}: the answer is no JSON: {data[:200]!r}") from error
    if not isinstance(found, dict):
        raise Unreachable(0, f"{what}: the answer is no object: {data[:200]!r}")
    return found


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])[:_MESSAGE_LENGTH]
    except (ValueError, KeyError, TypeError):
        return data[:500].decode(errors="replace")


__all__ = ["Event", "KubeClient", "KubeError", "Object"]

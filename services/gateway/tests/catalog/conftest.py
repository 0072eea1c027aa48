"""An API server for Models, ModelUses and EndpointSlices, as small as can be, over real HTTP: list in pages, watch,
merge patch, 410.

It refuses what it is told to refuse. Each Model has a ModelUse, as the controller makes it.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from cloudach_kube.access import Access

from tests.support.ports import free_port

Object = dict[str, Any]


class FakeApi:
    """`requests`: (method, path, query, headers, body), in their order."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.slices: dict[tuple[str, str], Object] = {}
        self.uses: dict[tuple[str, str], Object] = {}
        self.keys: dict[str, dict[str, str]] = {}  # of engines: namespace, Model, key
        self.version = 100
        self.oldest = 0  # watches from before this are gone
        self.page = 500
        self.refusal: tuple[int, str] | None = None  # what every question gets
        self.slices_refusal: tuple[int, str] | None = None  # what questions for EndpointSlices get
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str], bytes]] = []
        self._history: list[tuple[int, str, Object]] = []
        self._watching: set[asyncio.StreamWriter] = set()
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.port = free_port()  # it is stopped and started again

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """As when the machine goes: connections are cut."""
        assert self._server is not None
        self._server.close()
        for writer in self._watching:
            writer.transport.abort()
        await self._server.wait_closed()

    async def put(self, obj: Object) -> None:
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        found = self.slices if obj["kind"] == "EndpointSlice" else self.objects
        kind = "MODIFIED" if key in found else "ADDED"
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        found[key] = obj
        if obj["kind"] == "Model":
            self.uses.setdefault(key, {"kind": "ModelUse", "metadata": {"namespace": key[0], "name": key[1]}})
        await self._send_to_watches(kind, obj)

    async def delete(self, namespace: str, name: str, *, of: str = "models") -> None:
        obj = (self.objects if of == "models" else self.slices).pop((namespace, name))
        self.uses.pop((namespace, name), None)
        self.version += 1
        await self._send_to_watches(
            "DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        )

    async def say(self, event: Object) -> None:
        """An event of any kind to all who watch."""
        await self._send_to_watches(event["type"], event["object"])

    def asked(self, method: str, **query: str) -> list[tuple[str, str, dict[str, str], dict[str, str], bytes]]:
        """For anything but EndpointSlices."""
        return [r for r in self.questions if r[0] == method and all(r[2].get(k) == v for k, v in query.items())]

    @property
    def questions(self) -> list[tuple[str, str, dict[str, str], dict[str, str], bytes]]:
        return [r for r in self.requests if not r[1].endswith("/endpointslices")]

    async def cut(self) -> None:
        """All connections, watches among them."""
        for writer in self._watching:
            writer.transport.abort()

    async def _send_to_watches(self, kind: str, obj: Object) -> None:
        async with self._news:
            plural = "endpointslices" if obj.get("kind") == "EndpointSlice" else "models"
            self._history.append((self.version, plural, {"type": kind, "object": json.loads(json.dumps(obj))}))
            self._news.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._watching.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                url = urlsplit(target)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                self.requests.append((method, unquote(url.path), query, headers, body))
                await self._answer(writer, method, unquote(url.path), query, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._watching.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, path: str, query: dict[str, str], body: bytes
    ) -> None:
        if self.refusal is not None:
            code, message = self.refusal
            await _send(writer, code, {"kind": "Status", "code": code, "message": message})
            return
        if path.startswith("/api/v1/"):
            await self._secret(writer, path)
            return
        group, version, *parts = path.removeprefix("/apis/").split("/")
        namespace = parts[1] if parts[0] == "namespaces" else None
        if group == "discovery.k8s.io":
            assert (version, parts[-1]) == ("v1", "endpointslices")
            if self.slices_refusal is not None:
                code, message = self.slices_refusal
                await _send(writer, code, {"kind": "Status", "code": code, "message": message})
                return
        if "modeluses" in parts:
            obj = self.uses.get((parts[1], parts[3]))
            if obj is None:
                await _send(writer, 404, {"kind": "Status", "code": 404, "message": "not found"})
                return
            if method == "PATCH" and parts[4:] == ["status"]:
                obj.setdefault("status", {}).update(json.loads(body)["status"])
            await _send(writer, 200, obj)
        elif method != "GET":
            await _send(writer, 403, {"kind": "Status", "code": 403, "message": "gateways only read Models"})
        elif query.get("watch"):
            await self._watch(
                writer, parts[-1], namespace, int(query["resourceVersion"]), float(query["timeoutSeconds"])
            )
        else:
            kept = self.slices if parts[-1] == "endpointslices" else self.objects
            found = [o for o in kept.values() if namespace in (None, o["metadata"]["namespace"])]
            at = int(query.get("continue", 0))
            page = {"resourceVersion": str(self.version)}
            if at + self.page < len(found):
                page["continue"] = str(at + self.page)
            await _send(writer, 200, {"metadata": page, "items": found[at : at + self.page]})

    async def _secret(self, writer: asyncio.StreamWriter, path: str) -> None:
        _, namespace, _, name = path.removeprefix("/api/v1/").split("/")
        if name != "cloudach-engine-keys":
            await _send(writer, 403, {"kind": "Status", "code": 403, "message": "forbidden"})
        elif namespace not in self.keys:
            await _send(writer, 404, {"kind": "Status", "code": 404, "message": "not found"})
        else:
            data = {model: b64encode(key.encode()).decode() for model, key in self.keys[namespace].items()}
            await _send(writer, 200, {"kind": "Secret", "data": data})

    async def _watch(
        self, writer: asyncio.StreamWriter, plural: str, namespace: str | None, since: int, seconds: float
    ) -> None:
        if since < self.oldest:
            await _send(writer, 410, {"kind": "Status", "code": 410, "message": "too old resource version"})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        told = sum(version <= since for version, _, _ in self._history)
        try:
            async with asyncio.timeout(seconds):
                while not writer.is_closing():
                    for _, of, event in self._history[told:]:
                        told += 1
                        own = event["object"].get("metadata", {}).get("namespace")
                        if of == plural and (namespace is None or own in (None, namespace)):
                            data = json.dumps(event, ensure_ascii=False).encode() + b"\n"
                            for half in (data[: len(data) // 2], data[len(data) // 2 :]):  # cut anywhere
                                writer.write(b"%x\r\n%b\r\n" % (len(half), half))
                            await writer.drain()
                    async with self._news:
                        if told == len(self._history):
                            await self._news.wait()
        except TimeoutError:
            pass
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _send(writer: asyncio.StreamWriter, status: int, body: Object) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))
    await writer.drain()


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    server = FakeApi()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def access(api: FakeApi, tmp_path: Any) -> Access:
    """By a token file, as a pod has it."""
    token = tmp_path / "token"
    token.write_text("first\n")
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": api.url}}],
                "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            }
        )
    )
    return Access.find(config)


def make_model(
    name: str,
    *,
    namespace: str = "serving",
    created: str = "2026-01-01T00:00:00Z",
    ready: int = 1,
    state: str | None = "Ready",
    endpoint: str | None = "http://engine:8000",
    annotations: dict[str, str] | None = None,
    conditions: list[Object] | None = None,
    deleting: bool = False,
    engine_key: str | None = None,
    names: list[str] | None = None,
    **spec: Any,
) -> Object:
    """As the API server hands it out."""
    status: Object = {"readyReplicas": ready, "conditions": conditions or []}
    if engine_key is not None:
        status["engineKey"] = engine_key
    if names is not None:
        status["names"] = names
    if state is not None:
        status["state"] = state
    if endpoint is not None:
        status["endpoint"] = endpoint
    metadata: Object = {"name": name, "namespace": namespace, "creationTimestamp": created, "uid": f"uid-{name}"}
    if annotations:
        metadata["annotations"] = annotations
    if deleting:
        metadata["deletionTimestamp"] = "2026-02-01T00:00:00Z"
    return {
        "apiVersion": "cloudach.dev/v1alpha1",
        "kind": "Model",
        "metadata": metadata,
        "spec": {"source": {"simulator": {}}, **spec},
        "status": status,
    }


def make_slice(
    service: str,
    *addresses: str,
    name: str = "",
    namespace: str = "serving",
    ports: list[Object] | None = None,
    **conditions: bool | None,
) -> Object:
    """An EndpointSlice as Kubernetes makes it, with endpoints that are ready unless `conditions` say otherwise."""
    told = {"ready": True, "serving": True, "terminating": False, **conditions}
    endpoints = [{"addresses": [address], "conditions": told, "targetRef": _pod(address)} for address in addresses]
    own = name or f"{service}-abcde"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": own,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service, "ray.io/serve": service.replace("-svc", "")},
        },
        "addressType": "IPv6" if any(":" in address for address in addresses) else "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "serve", "port": 8000, "protocol": "TCP"}] if ports is None else ports,
    }


def _pod(address: str) -> Object:
    return {"kind": "Pod", "namespace": "serving", "name": f"pod-{address}", "uid": f"uid-{address}"}


@pytest.fixture(name="make_slice")
def _make_slice() -> Any:
    return make_slice


@pytest.fixture(name="make_model")
def _make_model() -> Any:
    return make_model

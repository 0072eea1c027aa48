"""Requests to an API server that keeps its promises, and to one that does not."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cloudach_kube import client as client_module
from cloudach_kube import official
from cloudach_kube.client import Event, KubeClient
from cloudach_kube.errors import Conflict, Gone, KubeError, NotFound, Refused, Unreachable
from cloudach_kube.kinds import PODS, SECRETS
from cloudach_kube.transport import KEEP_ALIVE, Transport

from .conftest import Server, kubeconfig

_WATCHES = 300  # a namespace has ten


def line(kind: str, obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}, ensure_ascii=False).encode() + b"\n"


async def events(client: KubeClient, *, seconds: float = 300) -> list[Event]:
    async with client.watch(PODS, "ns", "7", seconds=seconds) as found:
        return [event async for event in found]


async def test_watches_of_many_namespaces_leave_room_for_other_questions(server: Server, transport: Transport) -> None:
    """Each watch holds a connection for good. A limit would stop all work, and the Lease would not be renewed."""
    client = KubeClient(transport, manager="tester", timeout_s=30)
    all_there = asyncio.Event()
    watches = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal watches
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        response = web.StreamResponse()
        await response.prepare(request)
        watches += 1
        if watches == _WATCHES:
            all_there.set()
        await server.over.wait()
        return response

    async def watch(number: int) -> None:
        async with client.watch(PODS, f"team-{number}", "1", seconds=300) as found:
            async for _ in found:
                pass

    server.answer = answer
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch(number)) for number in range(_WATCHES)]
        async with asyncio.timeout(60):
            await all_there.wait()
        assert await client.list(PODS, "another") == ([], "1")
        for each in watching:
            each.cancel()


async def test_what_is_sent(server: Server, client: KubeClient) -> None:
    server.says(200, {"kind": "Status"})
    await client.apply(PODS, "ns", "a", {"b": 1}, sub="status")
    await client.merge(SECRETS, "ns", "a", {"b": None})
    await client.patch(PODS, "ns", "a", [{"op": "test", "path": "/a", "value": "ä"}])
    await client.create(PODS, "ns", {"kind": "Pod"})
    await client.delete(PODS, "ns", "a")
    told = [
        (r.method, r.path, dict(r.query), r.headers.get("content-type"), json.loads(body))
        for r, body in zip(server.requests, server.bodies, strict=True)
    ]
    parameters = {"fieldManager": "tester"}
    pods, secrets = "/api/v1/namespaces/ns/pods", "/api/v1/namespaces/ns/secrets"
    operations = [{"op": "test", "path": "/a", "value": "ä"}]
    assert told == [
        ("PATCH", f"{pods}/a/status", {**parameters, "force": "true"}, "application/apply-patch+yaml", {"b": 1}),
        ("PATCH", f"{secrets}/a", parameters, "application/merge-patch+json", {"b": None}),
        ("PATCH", f"{pods}/a", parameters, "application/json-patch+json", operations),
        ("POST", pods, {}, "application/json", {"kind": "Pod"}),
        ("DELETE", f"{pods}/a", {}, "application/json", {"propagationPolicy": "Background"}),
    ]
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer t"}
    assert {r.headers["user-agent"] for r in server.requests} == {"test"}


async def test_a_selector_arrives_as_it_was_meant(server: Server, client: KubeClient) -> None:
    selector = "ray.io/serve,team in (a,b),x!=ü&limit=1"
    await client.list(PODS, None, selector=selector, name="one")
    assert server.requests[0].path == "/api/v1/pods"
    assert server.requests[0].query["labelSelector"] == selector
    assert server.requests[0].query["fieldSelector"] == "metadata.name=one"


async def test_a_long_list_comes_in_pages(server: Server, client: KubeClient) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.query["limit"] == "500"
        at = int(request.query.get("continue", 0))
        more = {"continue": str(at + 1)} if at < 2 else {}
        return web.json_response({"metadata": {"resourceVersion": "9", **more}, "items": [{"at": at}]})

    server.answer = answer
    assert await client.list(PODS, "ns") == ([{"at": 0}, {"at": 1}, {"at": 2}], "9")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"metadata": {"resourceVersion": "9", "continue": "x"}, "items": []}, "the same page came twice"),
        ({"items": []}, "is no list"),
        ({"metadata": {}, "items": []}, "is no list"),
        ({"metadata": {"resourceVersion": "9"}, "items": {"a": 1}}, "is no list"),
        (["a"], "is no object"),
    ],
)
async def test_what_is_no_list_is_said(server: Server, client: KubeClient, answer: Any, said: str) -> None:
    server.says(200, answer)
    with pytest.raises(Unreachable, match=said):
        await client.list(PODS, "ns")


@pytest.mark.parametrize(
    ("status", "kind"), [(403, Refused), (404, NotFound), (409, Conflict), (410, Gone), (429, Unreachable)]
)
async def test_an_error_has_the_servers_words(
    server: Server, client: KubeClient, status: int, kind: type[KubeError]
) -> None:
    server.says(status, {"kind": "Status", "code": status, "message": "these words"})
    with pytest.raises(kind, match=f"GET /api/v1/namespaces/ns/pods/a: {status}: these words") as caught:
        await client.get(PODS, "ns", "a")
    assert caught.value.status == status
    with pytest.raises(kind, match="these words"):
        await events(client)


async def test_events_are_cut_anywhere_but_lines_at_newlines_alone(server: Server, client: KubeClient) -> None:
    added = line("ADDED", {"a": "\u0085 and \u2028 end no line"})
    server.watched(added[:20], added[20:] + line("BOOKMARK", {})[:5], line("BOOKMARK", {})[5:] + b"\n", then="end")
    assert await events(client) == [("ADDED", {"a": "\u0085 and \u2028 end no line"}), ("BOOKMARK", {})]
    assert server.requests[0].query["allowWatchBookmarks"] == "true"
    assert server.requests[0].query["resourceVersion"] == "7"


@pytest.mark.parametrize(
    ("sent", "kind", "said"),
    [
        (line("ERROR", {"code": 410, "message": "too old"}), Gone, "too old"),
        (line("ERROR", {"message": "odd"}), Unreachable, "odd"),
        (b"<html>\n", Unreachable, "no JSON"),
        (b'{"type": "ADDED"}\n', Unreachable, "no event"),
        (b"x" * 3000, Unreachable, "more than 2000 bytes"),
    ],
)
async def test_what_is_no_event_ends_the_watch(
    server: Server, client: KubeClient, monkeypatch: pytest.MonkeyPatch, sent: bytes, kind: type[KubeError], said: str
) -> None:
    monkeypatch.setattr(client_module, "_LONGEST_EVENT", 2000)
    server.watched(sent)
    with pytest.raises(kind, match=said):
        await events(client)


async def test_a_server_that_takes_a_question_and_says_nothing(
    server: Server, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudach_kube.client._WATCH_BEGIN_S", 1.0)

    async def answer(request: web.Request) -> web.StreamResponse:
        await server.over.wait()
        return web.Response()

    server.answer = answer
    for asked in (client.get(PODS, "ns", "a"), client.list(PODS, "ns"), events(client)):
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no answer within 1 s"):
            await asked
        assert time.monotonic() - began < 10


async def test_a_watch_is_waited_for_longer_than_an_answer(server: Server, client: KubeClient) -> None:
    """A busy API server answers a watch late. Given up each time, it would never be followed."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1.5)
        return web.Response(body=line("ADDED", {"metadata": {"name": "a"}}))

    server.answer = answer
    assert [kind for kind, _ in await events(client, seconds=1)] == ["ADDED"]


async def test_a_watch_that_does_not_end_in_time(server: Server, client: KubeClient) -> None:
    """Neither a server that is silent for ever nor one that talks on and on keeps a watch beyond its time."""
    server.watched(line("BOOKMARK", {}))
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not end"):
        await events(client, seconds=1)
    assert 1.5 < time.monotonic() - began < 10

    async def talk(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not server.over.is_set():
            await response.write(line("BOOKMARK", {}))
            await asyncio.sleep(0.05)
        return response

    server.answer = talk
    with pytest.raises(Unreachable, match="did not end"):
        await events(client, seconds=1)


async def test_a_server_that_is_away_or_breaks_off(server: Server, client: KubeClient) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", {})[:5])
        assert request.transport is not None
        request.transport.close()
        return response

    server.answer = cut
    for asked in (client.get(PODS, "ns", "a"), events(client)):
        with pytest.raises(Unreachable, match="does not answer") as caught:
            await asked
        assert caught.value.status == 0


async def test_a_token_in_a_file_is_read_anew(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the official client, which by itself keeps the first one until it has run out."""
    monkeypatch.setattr(official, "_RENEW_S", 0.0)
    token = tmp_path / "token"
    token.write_text("one")
    config = kubeconfig(tmp_path / "config", server.url, {"tokenFile": "token"})
    async with official.connect(config, agent="test") as transport:
        client = KubeClient(transport, manager="tester", timeout_s=5)
        await client.list(PODS, "ns")
        token.write_text("two")
        await client.list(PODS, "ns")
        token.unlink()
        with pytest.raises(KubeError, match="token"):
            await client.list(PODS, "ns")
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer one", "Bearer two"]


async def test_a_machine_that_vanished_is_noticed_within_half_a_minute(server: Server, tmp_path: Path) -> None:
    """The official client sets nothing of this, and a watch may be silent for minutes."""
    server.watched(line("BOOKMARK", {}))
    config = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    async with (
        official.connect(config, agent="test") as transport,
        transport.send("GET", "/api", query={}, content="", body=None) as answer,
    ):
        connection = answer._answer.connection
        assert connection is not None
        assert connection.transport is not None
        found = connection.transport.get_extra_info("socket")
        kept = [found.getsockopt(level, option) for level, option, _ in KEEP_ALIVE]
    on, idle_s, again_s, times = kept
    assert on
    assert idle_s + again_s * times <= 30


async def test_a_program_that_logs_us_in_is_run_anew(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of cloud providers, whose tokens hold for minutes. A failure leaves the token of before."""
    monkeypatch.setattr(official, "_RENEW_S", 0.0)
    credential = tmp_path / "credential"
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [str(credential)]}

    def grant(token: str) -> None:
        words = {"apiVersion": program["apiVersion"], "kind": "ExecCredential", "status": {"token": token}}
        credential.write_text(json.dumps(words))

    grant("one")
    config = kubeconfig(tmp_path / "config", server.url, {"exec": program})
    async with official.connect(config, agent="test") as transport:
        client = KubeClient(transport, manager="tester", timeout_s=5)
        await client.list(PODS, "ns")
        credential.unlink()
        await client.list(PODS, "ns")
        grant("two")
        await client.list(PODS, "ns")
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer one", "Bearer one", "Bearer two"]


@pytest.mark.parametrize("text", ["", "- a", "a: [", "{}", '{"clusters": 1, "current-context": "c"}'])
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(KubeError, match="no usable configuration"):
        async with official.connect(tmp_path / "config", agent="test"):
            pass
    with pytest.raises(KubeError, match="no usable configuration"):
        async with official.connect(tmp_path / "missing", agent="test"):
            pass

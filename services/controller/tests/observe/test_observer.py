"""Dashboards are asked and told with the right token, and only at the address of the right cluster."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cloudach_controller.act.own_tokens import OwnTokens
from cloudach_controller.decide.observation import Head, active_head, of_the_active_cluster, pods_that_count
from cloudach_controller.observe.dashboard import Dashboard
from cloudach_controller.observe.observer import Observer
from cloudach_controller.settings import parse
from cloudach_kube.kinds import Kind
from cloudach_model_api.model import Model

MODEL = Model.from_object({"metadata": {"name": "m", "namespace": "n"}, "spec": {"source": {"simulator": {}}}})
STARTED = {"status": {"activeServiceStatus": {"rayClusterName": "c"}}}


class Secrets:
    """An API server that knows this one Secret. `asked`: how often it was."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.asked = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        self.asked += 1
        return {"data": {"auth_token": self._token}}

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        return ""

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is made here")


def no_tokens() -> OwnTokens:
    """The one cluster was made with the token that its namespace shares."""
    return OwnTokens(Secrets(""), parse("").ray)


@asynccontextmanager
async def dashboard(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Its URL."""
    app = web.Application()
    app.router.add_get("/api/serve/applications/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def observed(token: str) -> tuple[list[str | None], str]:
    """The Authorization headers that a dashboard got, and what was out of reach."""
    seen: list[str | None] = []

    async def applications(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.json_response({"applications": {}})

    async with dashboard(applications) as url, aiohttp.ClientSession() as session:
        observer = Observer(
            Secrets(token), Dashboard(session, 30), no_tokens(), parse(f"ray: {{dashboard_url: '{url}'}}")
        )
        observation = await observer.observe(MODEL, STARTED, ())
    return seen, observation.unreachable


async def test_a_token_may_end_in_a_newline() -> None:
    seen, unreachable = await observed(b64encode(b"token\n").decode())
    assert (seen, unreachable) == (["Bearer token"], "")


@pytest.mark.parametrize("token", [b64encode(b"a\r\nx: y").decode(), b64encode(b"\xff").decode(), "no base64!"])
async def test_a_token_that_cannot_be_sent_is_said(token: str) -> None:
    seen, unreachable = await observed(token)
    assert seen == []
    assert "auth_token in the Secret cloudach-ray-token" in unreachable


async def test_the_token_is_read_once_and_again_when_a_dashboard_wants_another() -> None:
    wanted = "Bearer one"

    async def applications(request: web.Request) -> web.Response:
        good = request.headers.get("authorization") == wanted
        return web.json_response({"applications": {}}, status=200 if good else 401)

    async with dashboard(applications) as url, aiohttp.ClientSession() as session:
        api = Secrets(b64encode(b"one").decode())
        observer = Observer(api, Dashboard(session, 30), no_tokens(), parse(f"ray: {{dashboard_url: '{url}'}}"))
        for _ in range(3):
            assert (await observer.observe(MODEL, STARTED, ())).unreachable == ""
        assert api.asked == 1
        wanted, api._token = "Bearer two", b64encode(b"two").decode()
        for _ in range(3):
            assert (await observer.observe(MODEL, STARTED, ())).unreachable == ""
        assert api.asked == 2
        wanted = "Bearer three"
        assert "401" in (await observer.observe(MODEL, STARTED, ())).unreachable


LONG = "qwen3-235b-a22b-instruct-2507-fp8-production-eu-x7k2p"


@pytest.mark.parametrize(
    ("cluster", "told", "service"),
    [
        ("m-x7k2p", None, "m-x7k2p-head-svc"),
        ("m-x7k2p", "m-x7k2p-head-svc", "m-x7k2p-head-svc"),
        # KubeRay before 1.4 kept the last 50 characters, and put an r where no name may begin.
        ("m" * 45, "m" * 41 + "-head-svc", "m" * 41 + "-head-svc"),
        (LONG, "r" + f"{LONG}-head-svc"[-49:], "r" + f"{LONG}-head-svc"[-49:]),
        # Whoever may write a RayService's status must not get Ray's token sent to wherever they like.
        ("m-x7k2p", "other-head-svc", "m-x7k2p-head-svc"),
        ("m-x7k2p", "elsewhere.example.com/", "m-x7k2p-head-svc"),
    ],
)
def test_the_active_clusters_head_is_known_by_its_own_service(cluster: str, told: str | None, service: str) -> None:
    active = {"rayClusterName": cluster, "rayClusterStatus": {"head": {"serviceName": told}}}
    ray_service = {"status": {"activeServiceStatus": active, "pendingServiceStatus": {"rayClusterName": "m-b4f8d"}}}
    assert active_head(ray_service) == Head(cluster, service)


@pytest.mark.parametrize("cluster", ["", "elsewhere.example.com/x?", "a:1", "A", "-", "a" * 64])
def test_what_cannot_be_a_clusters_name_leads_nowhere(cluster: str) -> None:
    assert active_head({"status": {"activeServiceStatus": {"rayClusterName": cluster}}}) is None


def test_only_pods_of_the_active_cluster_and_the_one_on_its_way_count() -> None:
    def pod(name: str, **labels: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": {"cloudach.dev/model": "m", **labels}}}

    pods = [
        pod("next", **{"ray.io/cluster": "m-2"}),
        pod("dropped", **{"ray.io/cluster": "m-0"}),
        pod("serving", **{"ray.io/cluster": "m-1"}),
        pod("cleanup", **{"ray.io/cluster": "m-1", "ray.io/node-type": "redis-cleanup"}),
        pod("a stranger's"),
        {"metadata": {"name": "without labels"}},
    ]
    status = {"activeServiceStatus": {"rayClusterName": "m-1"}, "pendingServiceStatus": {"rayClusterName": "m-2"}}
    assert [one["metadata"]["name"] for one in pods_that_count({"status": status}, pods)] == ["serving", "next"]
    assert pods_that_count({"metadata": {}}, pods) == ()
    assert pods_that_count(None, pods) == ()


async def test_the_log_of_a_cluster_on_its_way_is_not_the_active_ones() -> None:
    class Crashed(Secrets):
        async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
            return f"ValueError: of {pod}"

    def crashing(cluster: str) -> dict[str, Any]:
        state = {"waiting": {"reason": "CrashLoopBackOff"}}
        container = {"name": "ray-worker", "state": state, "lastState": {"terminated": {"exitCode": 1}}}
        metadata = {"name": f"{cluster}-worker", "namespace": "n", "labels": {"ray.io/cluster": cluster}}
        return {"metadata": metadata, "status": {"containerStatuses": [container]}}

    async def nothing(_: web.Request) -> web.Response:
        return web.json_response({"applications": {}})

    status = {"activeServiceStatus": {"rayClusterName": "m-1"}, "pendingServiceStatus": {"rayClusterName": "m-2"}}
    async with dashboard(nothing) as url, aiohttp.ClientSession() as session:
        settings = parse(f"ray: {{dashboard_url: '{url}'}}")
        observer = Observer(Crashed(b64encode(b"t").decode()), Dashboard(session, 30), no_tokens(), settings)
        both = await observer.observe(MODEL, {"status": status}, [crashing("m-2"), crashing("m-1")])
        second = await observer.observe(MODEL, {"status": status}, [crashing("m-2")])
    assert (both.crashed_in, both.engine_log) == ("m-1", "ValueError: of m-1-worker")
    assert (second.crashed_in, second.engine_log) == ("m-2", "ValueError: of m-2-worker")
    assert of_the_active_cluster(both).engine_log == both.engine_log
    assert of_the_active_cluster(second).engine_log == ""
    assert of_the_active_cluster(second).pods == ()


async def test_only_the_address_of_one_cluster_is_told_counts() -> None:
    """By a Model's address another cluster might get the first one's arguments, and would replace its engines."""
    told: list[tuple[str, Any]] = []

    async def configure(request: web.Request) -> web.Response:
        told.append((request.headers["authorization"], await request.json()))
        return web.Response(status=200 if len(told) == 1 else 500, text="no")

    app = web.Application()
    app.router.add_put("/c-head-svc/api/serve/applications/", configure)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    secrets, head = Secrets(b64encode(b"token").decode()), Head("c", "c-head-svc")
    try:
        async with aiohttp.ClientSession() as session:
            one = Observer(
                secrets, Dashboard(session, 30), no_tokens(), parse(f"ray: {{dashboard_url: '{url}/{{head}}'}}")
            )
            assert await one.tell(MODEL, head, {"name": "model"}) == ""
            assert "answers 500: no" in await one.tell(MODEL, head, {"name": "model"})
            any_of_them = Observer(
                secrets, Dashboard(session, 30), no_tokens(), parse(f"ray: {{dashboard_url: '{url}/c-head-svc'}}")
            )
            assert "not to one of its clusters" in await any_of_them.tell(MODEL, head, {"name": "model"})
            assert await any_of_them.replicas_of(MODEL, head) is None
    finally:
        await runner.cleanup()
    assert len(told) == 2
    authorization, body = told[0]
    assert authorization == "Bearer token"
    assert body == {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "applications": [{"name": "model"}],
    }

"""What a cluster is told past KubeRay, and which one."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import aiohttp
from aiohttp import web
from cloudach_controller.dashboard import Dashboard
from cloudach_controller.kube.client import Kind
from cloudach_controller.observation import Head
from cloudach_controller.observe import Observer
from cloudach_controller.own_tokens import OwnTokens
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

MODEL = Model.from_object({"metadata": {"name": "m", "namespace": "n"}, "spec": {"source": {"simulator": {}}}})


class Secrets:
    """An API server that knows this one Secret."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        return {"data": {"auth_token": self._token}}

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        return ""

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is made here")


def no_tokens() -> OwnTokens:
    """The one cluster was made with the token that its namespace shares."""
    return OwnTokens(Secrets(""), parse("").ray)


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

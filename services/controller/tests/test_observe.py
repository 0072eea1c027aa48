"""What the dashboard is asked with."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cloudach_controller.dashboard import Dashboard
from cloudach_controller.kube.client import Kind
from cloudach_controller.observe import Observer
from cloudach_controller.settings import parse
from cloudach_model_api.model import Model

MODEL = Model.from_object({"metadata": {"name": "m", "namespace": "n"}, "spec": {"source": {"simulator": {}}}})
STARTED = {"status": {"activeServiceStatus": {"rayClusterName": "c"}}}


class Secrets:
    """An API server that knows this one Secret."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        return {"data": {"auth_token": self._token}}

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        return ""


async def observed(token: str) -> tuple[list[str | None], str]:
    """The Authorization headers that a dashboard got, and what was out of reach."""
    seen: list[str | None] = []

    async def applications(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.json_response({"applications": {}})

    app = web.Application()
    app.router.add_get("/api/serve/applications/", applications)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        settings = parse(f"ray: {{dashboard_url: 'http://127.0.0.1:{port}'}}")
        async with aiohttp.ClientSession() as session:
            observer = Observer(Secrets(token), Dashboard(session, 30), settings)
            observation = await observer.observe(MODEL, STARTED, ())
    finally:
        await runner.cleanup()
    return seen, observation.unreachable


async def test_a_token_may_end_in_a_newline() -> None:
    seen, unreachable = await observed(b64encode(b"token\n").decode())
    assert (seen, unreachable) == (["Bearer token"], "")


@pytest.mark.parametrize("token", [b64encode(b"a\r\nx: y").decode(), b64encode(b"\xff").decode(), "no base64!"])
async def test_a_token_that_cannot_be_sent_is_said(token: str) -> None:
    seen, unreachable = await observed(token)
    assert seen == []
    assert "auth_token in the Secret cloudach-ray-token" in unreachable

"""A Model of a cluster whose pods move, and its requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from cloudach_gateway.api.waking import Waking
from cloudach_gateway.catalog import Catalog, Resource, ServedModel
from cloudach_gateway.errors import GatewayError, ModelNotReady
from cloudach_gateway.proxy.conversation import Conversation
from cloudach_gateway.proxy.engine.routes import COMPLETIONS
from cloudach_gateway.proxy.placing.fleet import Engines
from cloudach_gateway.proxy.placing.placer import EngineRequest
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.settings import Failover, Model, Timeouts

from tests.support.ports import free_port
from tests.support.wire import STREAM_HEAD

from .runs import DONE, Heard, token


class Client:
    """One that reads, and gets heart-beats."""

    paused_at = None

    def __init__(self) -> None:
        self.beats = 0

    def takes_nothing(self) -> bool:
        return False

    def on_news(self, flow_changed: Any, gone: Any) -> None:
        pass

    async def beat(self) -> None:
        self.beats += 1


class Cluster:
    """As much of a cluster's Models as the wait for an engine asks about."""

    def lapsed(self, model: ServedModel) -> bool:
        return True

    def not_ready(self, model: ServedModel, *, waited_s: float = 0.0) -> ModelNotReady:
        assert model.absence is not None
        return ModelNotReady(f"It is {model.absence.why}.", retry_after_s=5)


class Scene:
    """A Model of a cluster and its requests."""

    def __init__(self, *upstreams: str, retries: int = 0, resource: bool = True) -> None:
        model = ServedModel.from_settings(Model(id="m", upstreams=("http://nowhere",), max_model_len=1000))
        own = Resource("serving", "m") if resource else None
        self.model = replace(model, upstreams=upstreams, resource=own, shared="serving/m" if resource else None)
        self.catalog = Catalog([])
        self.catalog.replace([self.model])
        self.engines = Engines(connect_s=20, directory=self.catalog)
        self.engines.start()
        self.client = Client()
        limits = {"first_token_s": 30, "between_tokens_s": 30, "total_s": 60, "heartbeat_s": 0.05, "retries": retries}
        self.timeouts = Timeouts(**limits)  # type: ignore[arg-type]

    def in_vain(self) -> GatewayError | None:
        """As the API's pipeline asks."""
        cluster: Any = Cluster()
        waking = Waking(cluster, self.catalog, self.timeouts, cluster, stream_s=30, whole_s=30, lapse_s=30)
        return waking.in_vain(self.model)

    def move(self, *upstreams: str) -> None:
        before = self.catalog.current(self.model).upstreams
        self.catalog.put([replace(self.model, upstreams=upstreams)])
        self.engines.left({*before} - {*upstreams})

    def ask(self, heard: Heard, *, patience_s: float = 30.0) -> asyncio.Task[Any]:
        fields = {"model": "m", "prompt": [1, 2], "max_tokens": 50, "temperature": 0, "stream": True}
        request = EngineRequest(
            self.model, COMPLETIONS, b"{}", (), fields=fields, patience_s=patience_s, in_vain=self.in_vain
        )
        failover = Failover(spread_s=0.02, budget_s=20)
        talk = Conversation(self.engines, self.timeouts, failover, request, heard, Tally(), reader=self.client)

        async def run() -> None:
            try:
                await talk.stream(heard)
            finally:
                self.engines.stop()

        return asyncio.create_task(run())


def gone() -> str:
    """Where a pod was, and nobody is any more."""
    return f"http://127.0.0.1:{free_port()}"


def answers(first: int = 0) -> Any:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD, *(token(n) for n in range(first, 30)), token(30, end='"stop"'), DONE)

    return play

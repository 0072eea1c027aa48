"""A request takes this way at every endpoint: it is read, admitted, relayed and settled."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send

from ..admission.api_keys import PresentedKey, parse_api_key
from ..client.request_headers import ClientGone
from ..client.sink import Outlet
from ..errors import ClientTooSlow, Overloaded
from ..lifecycle import Running
from ..proxy.listening import SlowReader
from ..proxy.placing.placer import EngineRequest
from ..proxy.stream.tally import Tally
from ..record import SCOPE_KEY, RequestRecord
from .account import Account
from .endpoint import Endpoint
from .failover_wish import FailoverWish
from .reader import Order, Reader
from .services import Services


class Pipeline:
    """Serves one endpoint as an ASGI application."""

    def __init__(self, services: Services, endpoint: Endpoint) -> None:
        self._services = services
        self._endpoint = endpoint
        self._reader = Reader(services, endpoint)
        default_answer = services.settings.limits.default_max_tokens
        self._account = Account(
            services.admission, endpoint.route, default_answer=default_answer, tracer=services.tracer
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        record: RequestRecord = scope[SCOPE_KEY]
        record.route = self._endpoint.route
        key = self._endpoint.dialect.key(scope)
        presented = parse_api_key(key)
        slow_reader_s = services.settings.timeouts.slow_reader_s
        with (
            services.lifecycle.let_in() as running,
            Outlet(
                scope,
                send,
                on_lost=running.client_gone,
                slow_reader_s=slow_reader_s,
                dialect=self._endpoint.dialect,
            ) as outlet,
        ):
            try:
                order = await self._reader.read(scope, receive, key, presented)
                await self._serve(order, presented, scope, record, outlet, running)
            except ClientGone:
                record.outcome = "cancelled"
            except SlowReader:
                record.error = ClientTooSlow()
                await outlet.abort()
            except asyncio.CancelledError:
                if running.gone:
                    return
                if not running.cut:  # the server gives up on the connection
                    raise
                if not record.completed:
                    await _say_goodbye(record, outlet)

    async def _serve(
        self, order: Order, key: PresentedKey, scope: Scope, record: RequestRecord, outlet: Outlet, running: Running
    ) -> None:
        record.model = order.model.id
        record.stream = order.asked.stream
        grant, tally = await self._account.open(key, order, record, scope)
        record.outcome = "failed"
        try:
            await self._answered(order, record, tally, outlet)
        except SlowReader:
            record.outcome = "cancelled"
            raise
        except asyncio.CancelledError:
            if not running.cut:  # what the drain deadline ends is not its client's doing
                record.outcome = "cancelled"
            raise
        finally:
            self._account.settle(grant, record, tally, whole=order.to_engine.answers is None)

    async def _answered(self, order: Order, record: RequestRecord, tally: Tally, outlet: Outlet) -> None:
        services, model, to_engine = self._services, order.model, order.to_engine
        request = EngineRequest(
            model,
            to_engine.route,
            to_engine.body,
            ((b"x-request-id", record.id.encode()),),
            fields=to_engine.fields,
            failover=services.settings.failover.enabled and order.wish is not FailoverWish.OFF,
        )
        waking = services.waking
        if waking is None or model.resource is None:
            await self._answer(order, request, record, tally, outlet)
            return
        with waking.in_use(model):
            began_s = record.age_s
            ready = await waking.ready_unless_failed(model, record, outlet)
            if ready is None:
                return
            to_engine = await self._reader.reread(order, ready)
            waited_s = record.age_s - began_s
            patience_s = waking.patience_s(ready, stream=record.stream, waited_s=waited_s)
            request = request._replace(
                model=ready,
                body=to_engine.body,
                spent_s=record.age_s,
                patience_s=patience_s,
                in_vain=partial(waking.in_vain, ready),
            )
            await self._answer(order, request, record, tally, outlet)

    async def _answer(
        self, order: Order, request: EngineRequest, record: RequestRecord, tally: Tally, outlet: Outlet
    ) -> None:
        relay, asked, answers = self._services.relay, order.asked, order.to_engine.answers
        if answers is None:
            answer = await relay.whole(request, asked.for_client, tally, record)
            record.complete()
        elif asked.stream:
            report = order.wish is FailoverWish.REPORT
            error = await relay.stream(request, answers, tally, outlet, record, report_failovers=report)
            if error is not None:
                record.end_with(error)
            return
        else:
            answer = await relay.gathered(request, answers, tally, record)
        await outlet.whole(answer)


async def _say_goodbye(record: RequestRecord, outlet: Outlet) -> None:
    """Tells a client that the drain's deadline has ended its request."""
    error = Overloaded("The server is restarting; send the request again.", retry_after_s=1.0)
    if record.outcome is not None:
        record.outcome = "failed"
    if not outlet.started:
        raise error
    record.end_with(error)
    try:
        await outlet.fail(error)
    except SlowReader:
        await outlet.abort()

"""A request's account: what is reserved for it at its admission, and what it has used in the end."""

from __future__ import annotations

import logging
import time

from cloudach_service import logs
from starlette.types import Scope

from ..admission import Admission, Grant
from ..admission.api_keys import PresentedKey
from ..client.request_headers import header
from ..errors import NeverFits, PermissionDenied, RateLimited
from ..proxy.stream.tally import Tally
from ..record import RequestRecord
from ..tracing.tracer import Tracer
from .reader import Order

_log = logging.getLogger("cloudach.gateway.usage")


class Account:
    def __init__(self, admission: Admission, route: str, *, default_answer: int, tracer: Tracer | None = None) -> None:
        """default_answer: the tokens that are reserved for an answer whose length the request does not limit."""
        self._admission = admission
        self._tracer = tracer
        self._route = route
        self._default_answer = default_answer

    async def open(self, key: PresentedKey, order: Order, record: RequestRecord, scope: Scope) -> tuple[Grant, Tally]:
        """Raises InvalidApiKey, PermissionDenied, RateLimited, NeverFits, Overloaded."""
        asked, model = order.asked, order.model
        began_at = time.perf_counter()
        try:
            grant = await self._admission.admit(
                key,
                request_id=record.id,
                models=order.names,
                tokens=asked.tokens(model, default_answer=self._default_answer),
                fingerprint=order.fingerprint,
                retry=header(scope, b"x-stainless-retry-count") not in (None, b"0"),
                model=model.id,
                route=self._route,
                guided=asked.guided,
            )
        except (RateLimited, NeverFits, PermissionDenied):  # the key itself is good: say in the log whose it is
            record.tenant, record.key_id = key.tenant, key.key_id
            raise
        finally:
            record.admission = began_at, time.perf_counter()
        record.tenant, record.key_id, record.limits = grant.tenant, grant.key_id, grant.limits
        record.redis_s = grant.redis_s
        tally = Tally(
            estimate=asked.prompt_tokens,
            prompts=asked.prompts,
            by_chunk=not model.speaks.token_ids,
            most=asked.bounds(size=order.size, max_model_len=model.max_model_len),
        )
        grant.progress = tally.so_far
        return grant, tally

    def settle(self, grant: Grant, record: RequestRecord, tally: Tally, *, whole: bool) -> None:
        """whole: the engine was asked for an answer in one piece."""
        outcome = "finished" if record.completed else record.outcome or "failed"
        if outcome == "failed":
            tally.came_to_nothing()
        record.outcome = outcome
        record.count(tally.prompt_tokens, tally.completion_tokens, tally.cached_tokens)
        record.finish_reasons = tuple(tally.finish_reasons.values())
        if tally.disbelieved:
            said = {"request_id": record.id, "model": record.model, "stated": tally.disbelieved}
            logs.event(_log, logging.WARNING, "an engine's usage is not believed", said)
        # Nobody knows what was generated of it: it is not billed, but counts for the limit as what was reserved.
        unseen = whole and outcome == "cancelled" and tally.usage is None and tally.prompt_tokens > 0
        self._admission.settle_soon(
            grant,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            cached_tokens=tally.cached_tokens,
            outcome=outcome,
            ttft_s=record.ttft_s,
            duration_s=record.age_s,
            failovers=len(record.failovers),
            window_tokens=grant.tokens if unseen else None,
            on_written=None if self._tracer is None else self._tracer.settles(record),
        )

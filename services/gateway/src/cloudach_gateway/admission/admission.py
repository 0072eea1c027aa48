"""The gateway's one door: it asks every check before a request, and settles what the request used after it.

Each takes one Redis round trip.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from ..errors import GatewayError, InternalError
from ..settings import Limits, Redis
from ..store import layout
from ..store.store import Reply, Store, StoreDown, StoreError, Unanswered
from .api_keys import PresentedKey, parse_api_key
from .check import Refusal
from .eviction import Eviction
from .grants import IN_DOUBT, NOTHING_ASKED, OUTCOMES, WITHDRAWN, Ask, Grant, Settlement
from .key_records import Caller, KeyLimits, KeyRecord
from .leases import Leases
from .local import LocalLimiter
from .refusals import error_of
from .rules import Rules
from .script_calls import Decoder, Encoder, Verdict
from .scripts import ALL, LIMITER
from .settlements import OnWritten, Settlements
from .sweep import Sweep

log = logging.getLogger("cloudach.gateway.admission")


class Admission:
    """Admits and settles requests. Each process has one; `url` is that of Redis, as in settings.Redis.

    Every method raises only the errors of errors.py. While Redis is away (`degraded`), keys that this process has seen
    lately go on under a limiter of its own. What they used is written when Redis is back.

    Usage records stay for at least `records_keep_s`, and until every consumer group has acknowledged them. `on_lost` is
    called with the number of requests of dead gateways that were found and billed. `on_evicts` is called whenever it
    changes that Redis may evict what it holds.
    """

    def __init__(
        self,
        url: str,
        redis: Redis | None = None,
        limits: Limits | None = None,
        *,
        records_keep_s: float = 7 * 86400.0,
        on_degraded: Callable[[bool], None] = lambda _: None,
        on_lost: Callable[[int], None] = lambda _: None,
        on_evicts: Callable[[bool], None] = lambda _: None,
    ) -> None:
        redis, limits = redis or Redis(), limits or Limits()
        self.rules = Rules(limits.window_s, limits.promise_grace_s, limits.lease_ttl_s, limits.guided_requests)
        self.encoder = Encoder(self.rules)
        self.store = Store(url, ALL, timeout_s=redis.timeout_s, probe_every_s=redis.probe_every_s)
        self.settlements = Settlements(self.store, self.encoder)
        self._decoder = Decoder()
        self._leases = Leases(self.store, self.encoder, on_lost)
        self.sweep = Sweep(self.store, self.encoder, records_keep_s, on_lost)
        self._local = LocalLimiter(self.rules, limits.degraded_memory_s, redis.probe_every_s)
        self._on_degraded = on_degraded
        self.eviction = Eviction(self.store, redis.eviction_check_every_s, on_evicts)
        self.store.on_change.append(self._redis_changed)

    @property
    def degraded(self) -> bool:
        """Returns True while Redis is away."""
        return not self.store.up

    @property
    def reached(self) -> asyncio.Event:
        """Is set once Redis has been reached. Before that, no key is known here."""
        return self.store.reached

    @property
    def running(self) -> int:
        """Counts the requests that this process has admitted and not yet settled."""
        return self._leases.running

    async def start(self) -> None:
        await self.store.start()
        await self.eviction.start()
        self._leases.start()
        self.sweep.start()

    async def close(self, flush_s: float = 2.0) -> None:
        """Waits at most `flush_s` for settlements to reach Redis."""
        await self.settlements.flush(flush_s)
        await self.eviction.close()
        await self.sweep.close()
        await self._leases.close()
        await self.settlements.close()
        await self.store.close()

    def knows(self, key: PresentedKey) -> bool:
        """Returns True if Redis has accepted the key here lately. It may have been revoked since."""
        return self._local.knows(key)

    async def authenticate(self, api_key: str) -> Caller:
        """Finds out who calls, and consumes nothing. Raises InvalidApiKey, PermissionDenied or Overloaded."""
        key = parse_api_key(api_key)
        try:
            verdict = await self._ask(key, None)
        except StoreDown:
            return self._local.authenticate(key)
        return Caller(self._accepted(key, verdict, None), verdict.limits)

    async def admit(
        self,
        api_key: str | PresentedKey,
        *,
        request_id: str,
        models: tuple[str, ...],
        tokens: int,
        fingerprint: str,
        retry: bool = False,
        model: str = "",
        route: str = "",
        guided: bool = False,
    ) -> Grant:
        """Lets a request pass, and reserves the most `tokens` that it may use until `settle`.

        The `fingerprint` stands for the request's body; with it a retry finds the place that it was promised. `retry`
        is True where the client says that this is one. `model` (default: the first of `models`) and `route`, which has
        no spaces, go into the usage record. `guided`: a schema, a grammar or a tool guides the answer.

        Raises InvalidApiKey, PermissionDenied, RateLimited, NeverFits, Overloaded, with `limits`.
        """
        key = api_key if isinstance(api_key, PresentedKey) else parse_api_key(api_key)
        name = hashlib.blake2b(f"{tokens}:{fingerprint}".encode(), digest_size=12).hexdigest()
        ask = Ask(request_id, models, tokens, name, retry, model or (models[0] if models else ""), route, guided)
        began_at, redis_s = time.perf_counter(), None
        try:
            verdict = await self._ask(key, ask)
            redis_s = time.perf_counter() - began_at
        except StoreDown as away:
            try:
                running = self._leases.running_of(key.tenant, key.key_id)
                guided_ones = self._leases.guided_of(key.tenant) if guided else 0
                grant = self._local.admit(key, ask, running, guided_ones)
            except GatewayError:
                if isinstance(away, Unanswered):
                    self._withdraw(key, ask)
                raise
            if isinstance(away, Unanswered):
                grant.lease = IN_DOUBT
        else:
            record = self._accepted(key, verdict, ask)
            grant = Grant(Caller(record, verdict.limits), request_id, tokens, verdict.lease)
        grant.model, grant.route, grant.guided, grant.redis_s = ask.model, ask.route, ask.guided, redis_s
        self._leases.add(grant)
        return grant

    async def settle(self, grant: Grant, **used: Any) -> None:
        """Does as settle_soon, and waits until Redis has it or is found away. Raises only when it is cancelled."""
        self.settle_soon(grant, **used)
        await self.settlements.sent()

    def settle_soon(
        self,
        grant: Grant,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        outcome: str,
        ttft_s: float | None = None,
        duration_s: float = 0.0,
        failovers: int = 0,
        window_tokens: int | None = None,
        on_written: OnWritten | None = None,
    ) -> None:
        """Frees the stream, corrects the reservation to the real tokens, adds to the day's totals, and writes the usage
        record. A grant is settled once; further calls do nothing.

        `outcome` is finished, cancelled or failed. `failovers` says how often the request went on with another engine.
        `window_tokens` is what counts in the tokens a minute, if that is not what is billed. Nothing is awaited, so a
        cancelled task may call this in its `finally`. If Redis is away, the settlement is written later.
        `on_written` is called once it is in Redis.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        if grant.settled:
            return
        grant.settled = True
        self._leases.remove(grant)
        caller = grant.caller
        if grant.degraded:
            used = prompt_tokens + completion_tokens if window_tokens is None else window_tokens
            self._local.settle(caller, grant.request_id, used)
        self.settlements.put(
            Settlement(
                tenant=caller.tenant,
                key_id=caller.key_id,
                request_id=grant.request_id,
                lease=grant.lease,
                day=layout.utc_day(time.time()),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cached_tokens=cached_tokens,
                outcome=outcome,
                model=grant.model,
                route=grant.route,
                ttft_ms=None if ttft_s is None else round(ttft_s * 1000),
                duration_ms=round(duration_s * 1000),
                failovers=failovers,
                window_tokens=window_tokens,
            ),
            on_written,
        )

    def _withdraw(self, key: PresentedKey, ask: Ask) -> None:
        day = layout.utc_day(time.time())
        self.settlements.put(
            Settlement(key.tenant, key.key_id, ask.request_id, IN_DOUBT, day, 0, 0, 0, WITHDRAWN, ask.model, ask.route)
        )

    def _redis_changed(self, up: bool) -> None:
        self._on_degraded(not up)
        if up:
            self._local.reset()

    async def _ask(self, key: PresentedKey, ask: Ask | None) -> Verdict:
        keys, args = self.encoder.admit(key, ask)

        def orphan(reply: Reply) -> None:  # admitted, but the caller is gone: give it back
            verdict = self._decoder.admit(key, reply)
            if ask is not None and verdict.refused is None and verdict.record is not None:
                grant = Grant(Caller(verdict.record, verdict.limits), ask.request_id, ask.tokens, verdict.lease)
                grant.model, grant.route = ask.model, ask.route
                self.settle_soon(grant, prompt_tokens=0, completion_tokens=0, outcome="cancelled")

        try:
            reply = await self.store.run(LIMITER.admit, keys, args, orphan=orphan if ask else None)
        except StoreError as error:
            raise InternalError("The server had an error.", cause=f"Redis: {error}") from error
        return self._decoder.admit(key, reply)

    def _accepted(self, key: PresentedKey, verdict: Verdict, ask: Ask | None) -> KeyRecord:
        """Returns the record of a caller that was let in, and raises the refusal otherwise."""
        record = verdict.record
        if record is None or verdict.refused in ("unknown", "expired", "disabled"):
            self._local.forget(key)
        else:
            self._local.remember(key, record, verdict.limits)
        if verdict.refused is not None or record is None:
            limits = record.limits if record is not None else KeyLimits()
            words = Refusal(ask or NOTHING_ASKED, limits, self.rules, verdict.wait_s)
            raise error_of(verdict.refused or "unknown", words, verdict.limits)
        return record

"""POST /v1/chat/completions, /v1/completions and /v1/embeddings: check, admit, relay, settle."""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Any

import orjson
from cloudach_service import logs
from openai_wire.allowed import check_fields, check_media, check_words
from openai_wire.guided import is_guided
from openai_wire.guided_bounds import check_guided
from openai_wire.json_values import values_in
from openai_wire.requests import (
    BadField,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    drop_empty_tools,
    mend,
    parse,
)
from starlette.types import Receive, Scope, Send

from ..admission import Admission, Grant, not_allowed
from ..admission.api_keys import PresentedKey, parse_api_key
from ..admission.salts import Salts
from ..catalog import Catalog, ServedModel
from ..client.intake import Intake
from ..client.request_headers import ClientGone, bearer_key, header, require_json
from ..client.sink import SseSink, send_json
from ..errors import (
    ClientTooSlow,
    GatewayError,
    InvalidRequest,
    NeverFits,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
)
from ..lifecycle import Lifecycle, Running
from ..proxy.conversation import SlowReader
from ..proxy.engine.routes import Route
from ..proxy.placing.placer import EngineRequest
from ..proxy.relay import Relay
from ..proxy.stream.bounds import bounds
from ..proxy.stream.collect import can_collect
from ..proxy.stream.rewrite import ClientView, UsageForm
from ..proxy.stream.tally import Tally
from ..record import SCOPE_KEY, RequestRecord
from ..settings import Settings
from .failover_wish import FailoverWish, failover_wish
from .waking import Waking

Asked = ChatRequest | CompletionRequest | EmbeddingRequest

_log = logging.getLogger("cloudach.gateway.usage")


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with; made once, in `app`."""

    settings: Settings
    catalog: Catalog
    admission: Admission
    relay: Relay
    lifecycle: Lifecycle
    intake: Intake
    salts: Salts
    waking: Waking | None = None  # where there is a cluster


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the engine gets, and whether its answer is asked for whole instead of as a stream."""

    body: bytes
    fields: dict[str, Any]
    whole: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    """A body as we see it. fields: all of it. prompt: about how many tokens the prompt has. fingerprint: the body's.

    guided: whether a schema, a grammar or a tool guides the answer.
    """

    asked: Asked
    fields: dict[str, Any]
    prompt: int
    fingerprint: str
    guided: bool


class GenerationEndpoint:
    """An ASGI endpoint for one kind of request."""

    def __init__(self, services: Services, kind: type[Asked], path: str, route: Route) -> None:
        self._services = services
        self._kind = kind
        self._engine_route = route
        self._route = path.removeprefix("/v1/")
        self._guided = services.settings.guided.bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.route = self._route
        key = bearer_key(scope)
        presented = parse_api_key(key)
        with (
            self._services.lifecycle.let_in() as running,
            SseSink(scope, send, on_lost=running.client_gone) as sink,
        ):
            try:
                await self._serve(scope, receive, send, key, presented, record, sink, running)
            except ClientGone:
                record.outcome = "cancelled"
            except SlowReader:
                record.error = ClientTooSlow()
                await sink.abort()
            except asyncio.CancelledError:
                if running.gone:
                    return
                if not running.cut:  # the server gives up on the connection
                    raise
                if not record.completed:
                    await _say_goodbye(record, sink)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        key: str,
        presented: PresentedKey,
        record: RequestRecord,
        sink: SseSink,
        running: Running,
    ) -> None:
        services = self._services
        if not (services.intake.is_ordinary(scope) or services.admission.knows(presented)):
            await services.admission.authenticate(key)
        parsed: Parsed | None = None
        try:
            body = await services.intake.read(scope, receive, presented)
            require_json(scope)
            wish = failover_wish(scope)
            parsed = await services.intake.worked(len(body), self._parsed, body)
            model = self._model(parsed)
            prepared = await services.intake.worked(len(body), self._prepared, parsed, model, presented)
        except GatewayError as error:
            # Who asks comes before what is asked: without a good key nothing is said about the request.
            caller = await services.admission.authenticate(key)
            error.limits = caller.limits
            if parsed is not None and not caller.may_use(self._names(parsed.asked)):  # nor about another's model
                other = not_allowed(parsed.asked.model)
                other.limits = caller.limits
                raise other from None
            raise
        asked = parsed.asked
        record.model = model.id
        record.stream = bool(getattr(asked, "stream", False))
        grant = await self._admit(key, parsed, model, record, scope)
        tally = Tally(
            estimate=parsed.prompt,
            prompts=getattr(asked, "prompts", 1),
            by_chunk=not model.speaks.token_ids,
            most=bounds(asked, size=len(body), max_model_len=model.max_model_len),
        )
        grant.progress = tally.so_far
        record.outcome = "failed"
        request = EngineRequest(
            model,
            self._engine_route,
            prepared.body,
            record.id,
            fields=prepared.fields,
            failover=services.settings.failover.enabled and wish is not FailoverWish.OFF,
        )
        try:
            if services.waking is not None and model.resource is not None:
                with services.waking.in_use(model):
                    began_s = record.age_s
                    ready = await services.waking.ready_or_told(model, record, sink)
                    if ready is not None:
                        if ready.upstream_model != model.upstream_model:  # who sleeps need not have said it
                            prepared = await services.intake.worked(len(body), prepare, prepared.fields, asked, ready)
                        waited_s = record.age_s - began_s
                        patience_s = services.waking.patience_s(ready, stream=record.stream, waited_s=waited_s)
                        request = replace(
                            request, model=ready, body=prepared.body, spent_s=record.age_s, patience_s=patience_s
                        )
                        await self._answer(asked, request, prepared, record, tally, sink, send, wish)
            else:
                await self._answer(asked, request, prepared, record, tally, sink, send, wish)
        except SlowReader:
            record.outcome = "cancelled"
            raise
        except asyncio.CancelledError:
            if not running.cut:  # what the drain deadline ends is not its client's doing
                record.outcome = "cancelled"
            raise
        finally:
            self._settle(grant, record, tally, whole=prepared.whole)

    def _settle(self, grant: Grant, record: RequestRecord, tally: Tally, *, whole: bool) -> None:
        """whole: whether the engine was asked for an answer in one piece."""
        outcome = "finished" if record.completed else record.outcome or "failed"
        if outcome == "failed":
            tally.came_to_nothing()
        record.outcome = outcome
        record.count(tally.prompt_tokens, tally.completion_tokens, tally.cached_tokens)
        if tally.disbelieved:
            said = {"request_id": record.id, "model": record.model, "stated": tally.disbelieved}
            logs.event(_log, logging.WARNING, "an engine's usage is not believed", said)
        # What was generated of it nobody knows: it is not billed, but counts for the limit as what was reserved.
        unseen = whole and outcome == "cancelled" and tally.usage is None and tally.prompt_tokens > 0
        self._services.admission.settle_soon(
            grant,
            prompt_tokens=tally.prompt_tokens,
            completion_tokens=tally.completion_tokens,
            cached_tokens=tally.cached_tokens,
            outcome=outcome,
            ttft_s=record.ttft_s,
            duration_s=record.age_s,
            failovers=len(record.failovers),
            window_tokens=grant.tokens if unseen else None,
        )

    async def _admit(self, key: str, parsed: Parsed, model: ServedModel, record: RequestRecord, scope: Scope) -> Grant:
        asked, default_answer = parsed.asked, self._services.settings.limits.default_max_tokens
        try:
            grant = await self._services.admission.admit(
                key,
                request_id=record.id,
                models=self._names(asked),
                tokens=tokens_to_reserve(asked, model, parsed.prompt, default_answer),
                fingerprint=parsed.fingerprint,
                retry=header(scope, b"x-stainless-retry-count") not in (None, b"0"),
                model=model.id,
                route=self._route,
                guided=parsed.guided,
            )
        except (RateLimited, NeverFits, PermissionDenied):  # the key itself is good: say in the log whose it is
            known = parse_api_key(key)
            record.tenant, record.key_id = known.tenant, known.key_id
            raise
        record.tenant, record.key_id, record.limits = grant.tenant, grant.key_id, grant.limits
        return grant

    def _parsed(self, body: bytes) -> Parsed:
        """Raises InvalidRequest, RequestTooLarge."""
        most = self._services.settings.bodies.max_values
        if values_in(body, most=most) > most:
            raise RequestTooLarge(f"The request body holds more than {most} JSON values and names.")
        body = body.removeprefix(codecs.BOM_UTF8)
        try:
            asked = parse(self._kind, body)
            fields = orjson.loads(body)
            mend(fields)
            if self._kind is ChatRequest:
                drop_empty_tools(fields)
        except BadField as bad:
            raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The request body cannot be read as JSON: {error}.", code="invalid_json") from error
        fingerprint = hashlib.blake2b(body, digest_size=12).hexdigest()
        return Parsed(asked, fields, asked.prompt_estimate(), fingerprint, is_guided(fields))

    def _names(self, asked: Asked) -> tuple[str, ...]:
        """Those of the model that is asked for, the one first that the client uses for it."""
        model = self._services.catalog.find(asked.model)
        if model is None:
            return (asked.model,)
        return model.names if asked.model == model.id else (asked.model, *model.names)

    def _model(self, parsed: Parsed) -> ServedModel:
        """Raises InvalidRequest, ModelNotFound, ModelNotReady."""
        asked = parsed.asked
        model = self._services.catalog.find(asked.model)
        if model is None:
            raise self._services.catalog.missing(asked.model)
        waking = self._services.waking
        if model.absence is not None and waking is not None and not waking.can_wait(model):
            raise waking.cluster.not_ready(model)
        if not isinstance(asked, EmbeddingRequest):
            limit, longest = asked.answer_limit, model.max_model_len
            if limit is not None and longest is not None and limit > longest:
                name = "max_completion_tokens" if getattr(asked, "max_completion_tokens", None) else "max_tokens"
                raise InvalidRequest(
                    f"Invalid '{name}': {limit} is more than the model's context of {longest} tokens.",
                    param=name,
                    code="context_length_exceeded",
                )
            if asked.stream_options is not None and not asked.stream:
                raise InvalidRequest(
                    "'stream_options' is only allowed when 'stream' is true.",
                    param="stream_options",
                    code="invalid_value",
                )
        return model

    def _prepared(self, parsed: Parsed, model: ServedModel, key: PresentedKey) -> Prepared:
        """Raises InvalidRequest for what callers of this model may not ask for, Overloaded."""
        fields, rules = parsed.fields, model.rules
        try:
            check_fields(fields, allowed=rules.allowed_fields, unknown=rules.pass_unknown)
            check_media(fields, domains=rules.media_domains, allowed=rules.allowed_fields)
            if not isinstance(parsed.asked, EmbeddingRequest):
                check_words(fields, self._services.settings.bodies.max_words)
                check_guided(fields, self._guided)
        except BadField as bad:
            raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
        wanted = fields.get("cache_salt")
        salt = self._services.salts.of(rules.cache_salt, key, wanted if isinstance(wanted, str) else None)
        if salt is not None:
            fields["cache_salt"] = salt
        return prepare(fields, parsed.asked, model)

    async def _answer(
        self,
        asked: Asked,
        request: EngineRequest,
        prepared: Prepared,
        record: RequestRecord,
        tally: Tally,
        sink: SseSink,
        send: Send,
        wish: FailoverWish,
    ) -> None:
        relay = self._services.relay
        if isinstance(asked, EmbeddingRequest) or prepared.whole:
            answer = await relay.whole(request, asked.model, tally, record)
            record.complete()
        elif asked.stream:
            report = wish is FailoverWish.REPORT
            error = await relay.stream(request, client_view(asked), tally, sink, record, report_failovers=report)
            if error is not None:
                record.end_with(error)
            return
        else:
            answer = await relay.gathered(request, asked, tally, record)
        if sink.paused_at is None:
            await send_json(send, answer)
            return
        try:
            async with asyncio.timeout(self._services.settings.timeouts.slow_reader_s):
                await send_json(send, answer)
        except TimeoutError:
            raise SlowReader from None


async def _say_goodbye(record: RequestRecord, sink: SseSink) -> None:
    """To a client whose request the drain deadline has ended."""
    error = Overloaded("The server is restarting; send the request again.", retry_after_s=1.0)
    if record.outcome is not None:
        record.outcome = "failed"
    if not sink.started:
        raise error
    record.end_with(error)
    await sink.finish(error.frame())


def tokens_to_reserve(asked: Asked, model: ServedModel, prompt: int, default_answer: int) -> int:
    """The prompt's estimate and the longest answer asked for: what the request may use at most, or about that."""
    if isinstance(asked, EmbeddingRequest):
        return prompt
    answer = default_answer if asked.answer_limit is None else asked.answer_limit
    if model.max_model_len is not None:
        answer = min(answer, max(1, model.max_model_len - prompt))
    return prompt + answer * asked.choices


def prepare(fields: dict[str, Any], asked: Asked, model: ServedModel) -> Prepared:
    """Raises InvalidRequest for what is nested deeper than can be written again."""
    whole = isinstance(asked, EmbeddingRequest) or not (asked.stream or can_collect(fields))
    if whole:
        fields["model"] = model.upstream_model
    else:
        ask_for_figures(fields, model)
    try:
        return Prepared(orjson.dumps(fields), fields, whole)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"The request body cannot be passed on: {error}.", code="invalid_json") from error


def client_view(asked: ChatRequest | CompletionRequest) -> ClientView:
    usage = UsageForm.LAST_CHOICE
    if asked.stream_options is not None:
        usage = UsageForm.EXTRA_CHUNK if asked.stream_options.include_usage else UsageForm.NONE
        if asked.stream_options.include_usage and asked.stream_options.continuous_usage_stats:
            usage = UsageForm.EVERY_CHUNK
    return ClientView(
        model=asked.model,
        usage=usage,
        token_ids=bool(asked.return_token_ids),
        answers_per_prompt=asked.n or 1,
    )


def ask_for_figures(fields: dict[str, Any], model: ServedModel) -> None:
    """Adds to the client's request what the platform sets itself: the engine's model name, a stream, all figures."""
    fields["model"] = model.upstream_model
    fields["stream"] = True
    options = dict(fields.get("stream_options") or {})
    options["include_usage"] = True
    if model.speaks.token_ids:
        echoes = bool(fields.get("echo"))
        if not echoes:  # vLLM leaves the echoed prompt out when token ids are asked for
            fields["return_token_ids"] = True
        if echoes or fields.get("include_reasoning") is False:  # with hidden reasoning vLLM hides all token ids
            options["continuous_usage_stats"] = True
    fields["stream_options"] = options

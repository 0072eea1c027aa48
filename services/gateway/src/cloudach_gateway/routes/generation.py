"""POST /v1/chat/completions, /v1/completions and /v1/embeddings: check, admit, relay, settle."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
from openai_wire.errors import error_frame
from openai_wire.requests import BadField, ChatRequest, CompletionRequest, EmbeddingRequest, parse
from starlette.types import Receive, Scope, Send

from ..catalog import Catalog, ServedModel
from ..errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NeverFits,
    Overloaded,
    PermissionDenied,
    RateLimited,
)
from ..lifecycle import Lifecycle, Running
from ..proxy.collect import can_collect
from ..proxy.relay import EngineRequest, Relay
from ..proxy.rewrite import ClientView, UsageForm
from ..proxy.tally import Tally
from ..record import SCOPE_KEY, RequestRecord
from ..settings import Settings
from ..tenancy import parse_api_key
from .body import ClientGone, bearer_key, header, read_body, require_json
from .ports import Admission, Grant
from .sink import SseSink, send_json

Asked = ChatRequest | CompletionRequest | EmbeddingRequest

_LAST_BYTES_S = 5.0


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with; made once, in `app`."""

    settings: Settings
    catalog: Catalog
    admission: Admission
    relay: Relay
    lifecycle: Lifecycle


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the engine gets, and whether its answer is asked for whole instead of as a stream."""

    body: bytes
    whole: bool


class GenerationEndpoint:
    """An ASGI endpoint for one kind of request."""

    def __init__(self, services: Services, kind: type[Asked], path: str) -> None:
        self._services = services
        self._kind = kind
        self._path = path
        self._route = path.removeprefix("/v1/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope[SCOPE_KEY]
        record.route = self._route
        services = self._services
        key = bearer_key(scope)
        with services.lifecycle.let_in() as running:
            try:
                body = await read_body(scope, receive, limit=services.settings.max_body_bytes)
                require_json(scope)
                asked, model, prepared = self._understand(body)
            except ClientGone:
                record.outcome = "cancelled"
                return
            except asyncio.CancelledError:
                if not running.cut:
                    raise
                raise Overloaded("The server is restarting; send the request again.", retry_after_s=1.0) from None
            except GatewayError as error:
                # Who asks comes before what is asked: without a good key nothing is said about the request.
                error.limits = (await services.admission.authenticate(key)).limits
                raise
            record.model = model.id
            record.stream = bool(getattr(asked, "stream", False))
            grant = await self._admit(key, body, asked, model, record, scope)
            tally = Tally(by_chunk=model.dialect == "openai")
            if tally.by_chunk:
                tally.prompt_tokens = asked.prompt_estimate()
            record.outcome = "failed"
            try:
                sink = SseSink(send)
                answering = self._answer(asked, model, prepared, record, tally, sink, send)
                await self._until_gone(answering, running, receive, record, sink)
            finally:
                if record.completed:
                    record.outcome = "finished"
                record.prompt_tokens, record.completion_tokens = tally.prompt_tokens, tally.completion_tokens
                services.admission.settle_soon(
                    grant,
                    prompt_tokens=tally.prompt_tokens,
                    completion_tokens=tally.completion_tokens,
                    cached_tokens=tally.cached_tokens,
                    outcome=record.outcome,
                )

    async def _admit(
        self, key: str, body: bytes, asked: Asked, model: ServedModel, record: RequestRecord, scope: Scope
    ) -> Grant:
        try:
            grant = await self._services.admission.admit(
                key,
                request_id=record.id,
                models=model.names,
                tokens=tokens_to_reserve(asked, model, self._services.settings.limits.default_max_tokens),
                fingerprint=hashlib.blake2b(body, digest_size=12).hexdigest(),
                retry=header(scope, b"x-stainless-retry-count") not in (None, b"0"),
            )
        except (RateLimited, NeverFits, PermissionDenied):  # the key itself is good: say in the log whose it is
            known = parse_api_key(key)
            record.tenant, record.key_id = known.tenant, known.key_id
            raise
        record.tenant, record.key_id, record.limits = grant.tenant, grant.key_id, grant.limits
        return grant

    def _understand(self, body: bytes) -> tuple[Asked, ServedModel, Prepared]:
        """The request as we see it, its model, and what the engine gets. Raises InvalidRequest, ModelNotFound."""
        try:
            asked = parse(self._kind, body)
            fields = orjson.loads(body)
        except BadField as bad:
            raise InvalidRequest(bad.message, param=bad.param, code=bad.code) from bad
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The request body cannot be read as JSON: {error}.", code="invalid_json") from error
        model = self._services.catalog.find(asked.model)
        if model is None:
            raise ModelNotFound(asked.model)
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
        try:
            return asked, model, prepare(fields, asked, model)
        except orjson.JSONEncodeError as error:  # nested deeper than can be written again
            raise InvalidRequest(f"The request body cannot be passed on: {error}.", code="invalid_json") from error

    async def _answer(
        self,
        asked: Asked,
        model: ServedModel,
        prepared: Prepared,
        record: RequestRecord,
        tally: Tally,
        sink: SseSink,
        send: Send,
    ) -> None:
        relay = self._services.relay
        request = EngineRequest(model, self._path, prepared.body, record.id)
        if isinstance(asked, EmbeddingRequest) or prepared.whole:
            answer = await relay.whole(request, asked.model, tally)
            record.complete()
            await send_json(send, answer)
            return
        view = client_view(asked)
        if asked.stream:
            record.error = await relay.stream(request, view, tally, sink, record)
            await sink.close()
        else:
            await send_json(send, await relay.gathered(request, asked, tally, record))

    async def _until_gone(
        self,
        answering: Coroutine[Any, Any, None],
        running: Running,
        receive: Receive,
        record: RequestRecord,
        sink: SseSink,
    ) -> None:
        """Runs `answering` until it is done or the client has gone or the drain deadline has come."""
        work = asyncio.ensure_future(answering)
        running.work = work
        watch = asyncio.ensure_future(_disconnected(receive))
        try:
            # The relay keeps to the total time itself, except while it waits for a client that does not read.
            longest = self._services.settings.timeouts.total_s + _LAST_BYTES_S
            await asyncio.wait((work, watch), timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                record.outcome = "cancelled"
                work.cancel()
                await asyncio.wait((work,))
        finally:
            watch.cancel()
            if not work.done():  # this task itself is being cancelled: the server gives up on the connection
                work.cancel()
        if not work.cancelled():
            work.result()
        elif running.cut and not record.completed:
            error = Overloaded("The server is restarting; send the request again.", retry_after_s=1.0)
            record.outcome, record.error = "failed", error
            if not sink.started:
                raise error
            await sink.write(error_frame(error.message, type=error.type, code=error.code))
            await sink.close()


def tokens_to_reserve(asked: Asked, model: ServedModel, default_answer: int) -> int:
    """The prompt's estimate and the longest answer asked for: what the request may use at most, or about that."""
    prompt = asked.prompt_estimate()
    if isinstance(asked, EmbeddingRequest):
        return prompt
    answer = default_answer if asked.answer_limit is None else asked.answer_limit
    if model.max_model_len is not None:
        answer = min(answer, max(1, model.max_model_len - prompt))
    return prompt + answer * asked.choices


def prepare(fields: dict[str, Any], asked: Asked, model: ServedModel) -> Prepared:
    """Raises orjson.JSONEncodeError."""
    if isinstance(asked, EmbeddingRequest) or not (asked.stream or can_collect(fields)):
        fields["model"] = model.upstream_model
        return Prepared(orjson.dumps(fields), whole=True)
    return Prepared(engine_body(fields, asked, model), whole=False)


def client_view(asked: ChatRequest | CompletionRequest) -> ClientView:
    usage = UsageForm.LAST_CHOICE
    if asked.stream_options is not None:
        usage = UsageForm.EXTRA_CHUNK if asked.stream_options.include_usage else UsageForm.NONE
        if asked.stream_options.include_usage and asked.stream_options.continuous_usage_stats:
            usage = UsageForm.EVERY_CHUNK
    return ClientView(
        model=asked.model, usage=usage, token_ids=bool(asked.return_token_ids), answers_per_prompt=asked.n or 1
    )


def engine_body(body: dict[str, Any], asked: ChatRequest | CompletionRequest, model: ServedModel) -> bytes:
    """The client's request with what the platform sets itself: the engine's model name, a stream, and all figures."""
    body["model"] = model.upstream_model
    body["stream"] = True
    options = dict(body.get("stream_options") or {})
    options["include_usage"] = True
    if model.dialect == "vllm":
        if body.get("echo"):  # vLLM leaves the echoed prompt out when token ids are asked for
            options["continuous_usage_stats"] = True
        else:
            body["return_token_ids"] = True
    body["stream_options"] = options
    return orjson.dumps(body)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

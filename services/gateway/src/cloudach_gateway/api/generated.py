"""Chats and completions have this in common: the answer is generated, and the engine is asked for a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from openai_wire.allowed import check_fields, check_media, check_words
from openai_wire.guided import is_guided
from openai_wire.guided_bounds import check_guided
from openai_wire.requests import BadField, Generation

from ..catalog import ServedModel
from ..proxy.engine.routes import Route
from ..proxy.engine.whole_answer import for_client
from ..proxy.stream.bounds import Bounds, longest_context, most_of_text
from ..proxy.stream.client_view import ClientView, UsageForm
from ..proxy.stream.collect import Collector, can_collect
from ..proxy.stream.rewrite import StreamRewriter
from ..proxy.stream.slow_path import SlowPath
from ..proxy.stream.tally import Tally
from ..settings import Settings
from .endpoint import ToEngine
from .engine_body import ask_for_figures, written

Typed = TypeVar("Typed", bound=Generation)


class Generated(ABC, Generic[Typed]):
    """A request for a generated answer. Its subclasses say what differs between the endpoints."""

    def __init__(self, typed: Typed, fields: dict[str, Any]) -> None:
        self.typed = typed
        self.fields = fields
        self.model = typed.model
        self.stream = bool(typed.stream)
        self.prompt_tokens = typed.prompt_estimate()
        self.guided = is_guided(fields)

    @property
    @abstractmethod
    def route(self) -> Route:
        """The engine's path."""

    @property
    @abstractmethod
    def prompts(self) -> int: ...

    @property
    @abstractmethod
    def view(self) -> ClientView: ...

    @property
    @abstractmethod
    def limit_name(self) -> str:
        """The field that holds the longest answer."""

    @abstractmethod
    def bounds(self, *, size: int, max_model_len: int | None) -> Bounds: ...

    def check(self, model: ServedModel, settings: Settings) -> None:
        limit, longest = self.typed.answer_limit, model.max_model_len
        if limit is not None and longest is not None and limit > longest:
            raise BadField(
                f"Invalid '{self.limit_name}': {limit} is more than the model's context of {longest} tokens.",
                param=self.limit_name,
                code="context_length_exceeded",
            )
        if self.typed.stream_options is not None and not self.stream:
            raise BadField(
                "'stream_options' is only allowed when 'stream' is true.", param="stream_options", code="invalid_value"
            )
        rules = model.rules
        check_fields(self.fields, allowed=rules.allowed_fields, unknown=rules.pass_unknown)
        check_media(self.fields, domains=rules.media_domains, allowed=rules.allowed_fields)
        check_words(self.fields, settings.bodies.max_words)
        check_guided(self.fields, settings.guided.bounds)

    def tokens(self, model: ServedModel, *, default_answer: int) -> int:
        limit = self.typed.answer_limit
        answer = default_answer if limit is None else limit
        if model.max_model_len is not None:
            answer = min(answer, max(1, model.max_model_len - self.prompt_tokens))
        return self.prompt_tokens + answer * self.typed.choices

    def to_engine(self, model: ServedModel) -> ToEngine:
        self.fields["model"] = model.upstream_model
        streamed = self.stream or can_collect(self.fields)
        if streamed:
            ask_for_figures(self.fields, model)
        return ToEngine(
            self.route, written(self.fields), self.fields, answers=ChunkAnswers(self.view) if streamed else None
        )

    def for_client(self, answer: dict[str, Any]) -> bytes:
        return for_client(answer, self.model)

    def _bounds(self, *, of_text: bool, size: int, max_model_len: int | None, answers: int) -> Bounds:
        """of_text: all of the prompt is text. answers: how many the engine generates."""
        longest = longest_context(max_model_len)
        prompt = longest * self.prompts
        if of_text:
            prompt = min(prompt, most_of_text(size))
        limit = self.typed.answer_limit
        most = longest if limit is None else max(1, limit)  # vLLM generates one token for 0
        return Bounds.within(prompt, most * answers)

    def _usage_form(self) -> UsageForm:
        options = self.typed.stream_options
        if options is None:
            return UsageForm.LAST_CHOICE
        if not options.include_usage:
            return UsageForm.NONE
        return UsageForm.EVERY_CHUNK if options.continuous_usage_stats else UsageForm.EXTRA_CHUNK


class ChunkAnswers(NamedTuple):
    """Answers in OpenAI's chunks: the client gets the engine's own, without what it has not asked for."""

    view: ClientView

    def rewriter(
        self,
        tally: Tally,
        *,
        on_begun: Callable[[], None],
        on_slow_path: Callable[[SlowPath], None],
        report: Callable[[], list[dict[str, Any]]],
    ) -> StreamRewriter:
        return StreamRewriter(self.view, tally, on_begun=on_begun, on_slow_path=on_slow_path, report=report)

    def collector(
        self, tally: Tally, *, own_fields: bool, largest: int, on_slow_path: Callable[[SlowPath], None]
    ) -> Collector:
        return Collector(self.view, tally, vllm=own_fields, largest=largest, on_slow_path=on_slow_path)

    def for_client(self, answer: dict[str, Any]) -> bytes:
        if not self.view.token_ids:  # they were asked for by the gateway
            for holder in (answer, *answer["choices"]):
                holder.pop("token_ids", None)
                holder.pop("prompt_token_ids", None)
        return for_client(answer, self.view.model)

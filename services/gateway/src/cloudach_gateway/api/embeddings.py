"""POST /v1/embeddings. Only the prompt costs tokens, and the answer comes in one piece."""

from __future__ import annotations

from typing import Any

from openai_wire.allowed import check_fields, check_media
from openai_wire.requests import EmbeddingRequest, read, typed

from ..catalog import ServedModel
from ..proxy.engine import routes
from ..proxy.engine.whole_answer import for_client
from ..proxy.stream.bounds import Bounds, most_of_text
from ..settings import Settings
from .endpoint import Endpoint, ToEngine
from .engine_body import written


class Embedding:
    stream = False
    guided = False
    prompts = 1

    def __init__(self, body: bytes) -> None:
        self.fields = read(body)
        request = typed(EmbeddingRequest, self.fields)
        self.model = request.model
        self.prompt_tokens = request.prompt_estimate()

    def check(self, model: ServedModel, settings: Settings) -> None:
        rules = model.rules
        check_fields(self.fields, allowed=rules.allowed_fields, unknown=rules.pass_unknown)
        check_media(self.fields, domains=rules.media_domains, allowed=rules.allowed_fields)

    def tokens(self, model: ServedModel, *, default_answer: int) -> int:
        return self.prompt_tokens

    def bounds(self, *, size: int, max_model_len: int | None) -> Bounds:
        return Bounds(most_of_text(size), 0)

    def to_engine(self, model: ServedModel) -> ToEngine:
        self.fields["model"] = model.upstream_model
        return ToEngine(routes.EMBEDDINGS, written(self.fields), self.fields, answers=None)

    def for_client(self, answer: dict[str, Any]) -> bytes:
        return for_client(answer, self.model)


EMBEDDINGS = Endpoint("/v1/embeddings", Embedding)

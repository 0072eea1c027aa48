"""POST /v1/completions."""

from __future__ import annotations

from openai_wire.requests import CompletionRequest, read, typed

from ..proxy.engine import routes
from ..proxy.stream.bounds import Bounds
from ..proxy.stream.client_view import ClientView
from .endpoint import Endpoint
from .generated import Generated


class Completion(Generated[CompletionRequest]):
    route = routes.COMPLETIONS
    limit_name = "max_tokens"

    @classmethod
    def read(cls, body: bytes) -> Completion:
        fields = read(body)
        return cls(typed(CompletionRequest, fields), fields)

    @property
    def prompts(self) -> int:
        return self.typed.prompts

    @property
    def view(self) -> ClientView:
        asked = self.typed
        return ClientView(
            model=asked.model,
            usage=self._usage_form(),
            token_ids=bool(asked.return_token_ids),
            answers_per_prompt=asked.n or 1,
            choices=asked.choices,
        )

    def bounds(self, *, size: int, max_model_len: int | None) -> Bounds:
        answers = max(self.typed.choices, (self.typed.best_of or 1) * self.typed.prompts)
        return self._bounds(of_text=True, size=size, max_model_len=max_model_len, answers=answers)


COMPLETIONS = Endpoint("/v1/completions", Completion.read)

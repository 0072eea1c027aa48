"""POST /v1/chat/completions."""

from __future__ import annotations

from openai_wire.requests import ChatRequest, drop_empty_tools, read, typed

from ..proxy.engine import routes
from ..proxy.stream.bounds import Bounds
from ..proxy.stream.client_view import ClientView
from .endpoint import Endpoint
from .generated import Generated


class Chat(Generated[ChatRequest]):
    route = routes.CHAT
    prompts = 1

    @classmethod
    def read(cls, body: bytes) -> Chat:
        fields = read(body)
        request = typed(ChatRequest, fields)
        drop_empty_tools(fields)
        return cls(request, fields)

    @property
    def view(self) -> ClientView:
        asked = self.typed
        return ClientView(
            model=asked.model,
            usage=self._usage_form(),
            token_ids=bool(asked.return_token_ids),
            answers_per_prompt=asked.choices,
            choices=asked.choices,
            chat=True,
            forced_call=asked.tool_choice not in (None, "auto", "none"),
        )

    @property
    def limit_name(self) -> str:
        return "max_completion_tokens" if self.typed.max_completion_tokens else "max_tokens"

    def bounds(self, *, size: int, max_model_len: int | None) -> Bounds:
        of_text = not any(isinstance(message.content, list) for message in self.typed.messages)
        return self._bounds(of_text=of_text, size=size, max_model_len=max_model_len, answers=self.typed.choices)


CHAT = Endpoint("/v1/chat/completions", Chat.read)

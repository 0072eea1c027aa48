"""A stream gathered into the one JSON answer of a request that did not ask for a stream: pure.

Plain requests without `stream` still run as streams towards the engine, so that the gateway knows at every moment
what was generated: a caller that goes away is billed exactly. What cannot be gathered faithfully (tools, which engines
parse differently in streams, and fields that only whole answers have) is asked for whole: see `can_collect`.
"""

from __future__ import annotations

from typing import Any

import orjson
from openai_wire.requests import ChatRequest, CompletionRequest

from . import logprobs
from .chunk import SHAPE_ERRORS, BadChunk, parse
from .running import RunningForm
from .tally import Tally

# Fields with which vLLM refuses to stream, or answers with something that its streams leave out.
_ONLY_WHOLE = (
    "tools",
    "functions",
    "echo",
    "suffix",
    "best_of",
    "prompt_logprobs",
    "use_beam_search",
    "return_prompt_text",
    "kv_transfer_params",
    "ec_transfer_params",
)


# What vLLM has in a whole answer, null or not, in its order; of a stream's chunks it leaves out what is null.
_OF_BOTH = ("service_tier", "system_fingerprint", "usage")
_PARAMS = ("kv_transfer_params", "ec_transfer_params", "metrics")
_OF_CHATS = (*_OF_BOTH, "prompt_logprobs", "prompt_token_ids", "prompt_text", *_PARAMS)
_OF_COMPLETIONS = (*_OF_BOTH, *_PARAMS)
_OF_MESSAGES = ("refusal", "annotations", "audio", "function_call", "reasoning")
_OF_CHAT_CHOICES = ("logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts")
_OF_COMPLETION_CHOICES = (*_OF_CHAT_CHOICES[:-1], "prompt_logprobs", "prompt_token_ids", "routed_experts")
_OF_USAGE = (
    *("prompt_tokens", "total_tokens", "completion_tokens"),
    *("prompt_tokens_details", "completion_tokens_details"),
)
_OF_PROMPT_DETAILS = ("cached_tokens", "created_cache_tokens", "multimodal_tokens")


def can_collect(body: dict[str, Any]) -> bool:
    return not any(_asks(body.get(name)) for name in _ONLY_WHOLE)


def _asks(value: Any) -> bool:
    """Whether a field asks for something. Zero does: with it, `prompt_logprobs` tells those of the prompt's tokens."""
    return value is not None and value is not False and value != []


class Collector:
    """Feed it the payloads of the engine's events in order; `answer()` is the whole response body."""

    def __init__(self, request: ChatRequest | CompletionRequest, tally: Tally, *, vllm: bool = True) -> None:
        """vllm: whether the engine is one, so that the answer has all that vLLM's own has."""
        self._chat = isinstance(request, ChatRequest)
        self._vllm = vllm
        self._model = request.model
        self._token_ids = bool(request.return_token_ids)
        self._answers_per_prompt = request.n or 1
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.form: RunningForm | None = None  # of the answer's running chunks, once it is known
        self.texts: list[bytes] = []  # of the first choice, as in JSON strings, not yet in its text
        self.tally = tally

    @property
    def choices_seen(self) -> bool:
        return bool(self._choices)

    def relay(self, events: bytes) -> bytes | None:
        """b"" if these are whole events, all of them running chunks, and taken; None: `feed` them."""
        found = None if self.form is None else self.form.split(events)
        if found is None:
            return None
        texts, ids = found
        self.tally.transcript.note(events, ids)
        self.texts += texts
        return b""

    def feed(self, payload: bytes) -> None:
        """Raises EngineReportedError, BadChunk."""
        found = None if self.form is None else self.form.one(payload)
        if found is not None:
            self.tally.transcript.note(payload, found[1])
            self.texts.append(found[0])
            return
        try:
            self._feed(payload)
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error

    def _feed(self, payload: bytes) -> None:
        chunk = parse(payload)
        self._settle_texts()
        if self.form is None and not self._token_ids:
            self.form = RunningForm.of(payload)
            if self.form is not None:
                self.tally.transcript.form = self.form
        if chunk.get("choices"):
            self.tally.transcript.recent.append(payload)
            self.tally.take_chunk(chunk, answers_per_prompt=self._answers_per_prompt)
        elif isinstance(chunk.get("usage"), dict):
            self.tally.take_usage(chunk["usage"])
        chunk.pop("usage", None)
        choices = chunk.pop("choices", None) or ()
        for key, value in chunk.items():
            if value is not None:
                self._head.setdefault(key, value)
        for choice in choices:
            self._take(choice)

    def answer(self) -> bytes:
        """Raises BadChunk."""
        try:
            return self._answer()
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error

    def _answer(self) -> bytes:
        self._settle_texts()
        head = self._head | {"model": self._model}
        head["object"] = "chat.completion" if self._chat else "text_completion"
        if not self._token_ids:
            head.pop("prompt_token_ids", None)
        first = {key: head.pop(key) for key in ("id", "object", "created", "model") if key in head}
        choices = [self._choices[index] for index in sorted(self._choices)]
        usage = self.tally.statement()
        rest: dict[str, Any] = {}
        if self._vllm:
            usage = dict.fromkeys(_OF_USAGE) | usage
            if isinstance(usage["prompt_tokens_details"], dict):
                usage["prompt_tokens_details"] = dict.fromkeys(_OF_PROMPT_DETAILS) | usage["prompt_tokens_details"]
            rest = dict.fromkeys(_OF_CHATS if self._chat else _OF_COMPLETIONS)
            for choice in choices:
                self._finish(choice)
        return orjson.dumps(first | {"choices": choices} | rest | {"usage": usage} | head)

    def _finish(self, choice: dict[str, Any]) -> None:
        """What vLLM says otherwise in whole answers than in streams."""
        if self._chat:
            message = choice["message"]
            if message["reasoning"] and not message["content"]:
                message["content"] = None
        elif choice["logprobs"] is not None:
            choice["logprobs"] |= logprobs.offsets(choice["logprobs"])

    def _settle_texts(self) -> None:
        if self.texts:
            text = orjson.loads(b'"%b"' % b"".join(self.texts))
            self.texts.clear()
            choice = self._choices[0]
            if self._chat:
                choice["message"]["content"] += text
            else:
                choice["text"] += text

    def _take(self, part: dict[str, Any]) -> None:
        index = part.get("index", 0)
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = self._empty_choice(index)
        if self._token_ids:
            if isinstance(part.get("prompt_token_ids"), list):
                choice["prompt_token_ids"] = part["prompt_token_ids"]
            if isinstance(part.get("token_ids"), list):
                choice["token_ids"] = (choice.get("token_ids") or []) + part["token_ids"]
        if self._chat:
            _append_message(choice["message"], part.get("delta") or {})
        else:
            choice["text"] += part.get("text") or ""
        if isinstance(part.get("logprobs"), dict):
            choice["logprobs"] = _joined(choice["logprobs"] or {}, part["logprobs"])
        for key in ("finish_reason", "stop_reason"):
            if part.get(key) is not None:
                choice[key] = part[key]

    def _empty_choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        fields: tuple[str, ...] = _OF_CHAT_CHOICES[:3]
        if self._vllm:
            message |= dict.fromkeys(_OF_MESSAGES)
            fields = _OF_CHAT_CHOICES if self._chat else _OF_COMPLETION_CHOICES
        return {"index": index, **({"message": message} if self._chat else {"text": ""}), **dict.fromkeys(fields)}


def _append_message(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key != "role" and value is not None:
            message[key] = _appended(message.get(key), value)


def _joined(held: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities are lists per token, in chat under `content`, in completions several side by side."""
    return held | {key: _appended(held.get(key), value) for key, value in part.items()}


def _appended(held: Any, value: Any) -> Any:
    """Texts and lists grow; of anything else the last one counts."""
    if isinstance(held, str) and isinstance(value, str):
        return held + value
    if isinstance(held, list) and isinstance(value, list):
        return held + value
    return value

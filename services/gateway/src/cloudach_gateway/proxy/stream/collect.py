"""Gathers a stream into one JSON answer, for a request that did not ask for a stream: pure.

The gateway asks engines for streams even then. So it knows at every moment what was generated, bills a client that goes
away exactly, and can go on at another engine. Some fields have an effect that only whole answers show; requests with
them are asked for whole (see `can_collect`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ..engine.chunk import LARGEST_ANSWER, SHAPE_ERRORS, BadChunk, TooLarge, parse
from . import collect_calls, logprobs
from .client_view import ClientView
from .express import MOST_TEXTS
from .form import RunningForm, head_of
from .pieces import PIECE, grow, joined
from .slow_path import FormFinder, SlowPath
from .tally import Tally

# With these fields vLLM refuses to stream, or its streams leave something out that whole answers have.
_ONLY_WHOLE = (
    "echo",
    "suffix",
    "best_of",
    "prompt_logprobs",
    "prompt_embeds",
    "use_beam_search",
    "return_prompt_text",
    "kv_transfer_params",
    "ec_transfer_params",
)


# The fields of vLLM's whole answers, in its order. Whole answers have them even where they are null; chunks do not.
_ANSWER_FIELDS = ("service_tier", "system_fingerprint", "usage")
_LAST_FIELDS = ("kv_transfer_params", "ec_transfer_params", "metrics")
_CHAT_FIELDS = (*_ANSWER_FIELDS, "prompt_logprobs", "prompt_token_ids", "prompt_text", *_LAST_FIELDS)
_COMPLETION_FIELDS = (*_ANSWER_FIELDS, *_LAST_FIELDS)
_MESSAGE_FIELDS = ("refusal", "annotations", "audio", "function_call", "reasoning")
_CHAT_CHOICE_FIELDS = ("logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts")
_COMPLETION_CHOICE_FIELDS = (*_CHAT_CHOICE_FIELDS[:-1], "prompt_logprobs", "prompt_token_ids", "routed_experts")
_USAGE_FIELDS = (
    *("prompt_tokens", "total_tokens", "completion_tokens"),
    *("prompt_tokens_details", "completion_tokens_details"),
)
_MOST_UNREAD_BYTES = 1024 * 1024
_PROMPT_DETAIL_FIELDS = ("cached_tokens", "created_cache_tokens", "multimodal_tokens")


def can_collect(body: dict[str, Any]) -> bool:
    return not any(_asks(body.get(name)) for name in _ONLY_WHOLE)


def _asks(value: Any) -> bool:
    """Returns whether a field's value asks for something. Zero does, because `prompt_logprobs: 0` is a wish."""
    return value is not None and value is not False and value != []


class Collector:
    """Feed it the payloads of the engine's events in order; `answer()` is the whole response body."""

    def __init__(
        self,
        view: ClientView,
        tally: Tally,
        *,
        vllm: bool = True,
        largest: int = LARGEST_ANSWER,
        on_slow_path: Callable[[SlowPath], None] = lambda reason: None,
    ) -> None:
        """vllm: the engine is vLLM, so the answer gets all fields that vLLM's own answers have. largest: about how many
        bytes the answer may have. on_slow_path: is told why running chunks have to be parsed.
        """
        self._largest = largest
        self._held = 0  # bytes, about
        self._unread = 0  # bytes of the events whose texts are in `texts`, without those that `Gathering` took
        self._choices_asked = view.choices
        self._chat = view.chat
        self._vllm = vllm
        self._forced = view.forced_call
        self._model = view.model
        self._token_ids = view.token_ids
        self._answers_per_prompt = view.answers_per_prompt
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._forms = FormFinder(on_slow_path)
        self.form: RunningForm | None = None  # of the answer's running chunks, once it is known
        self.texts: list[bytes] = []  # insides of JSON strings, which the first choice does not have yet
        self.tally = tally

    @property
    def choices_seen(self) -> bool:
        return bool(self._choices)

    def relay(self, events: bytes) -> bytes | None:
        """Takes whole events if all of them are running chunks, and returns b"" then. Otherwise: None; `feed` them."""
        found = self.form.split(events) if self.form is not None and self._may_wait(events) else None
        if found is None:
            return None
        texts, ids = found
        self._unread += len(events)
        self.tally.transcript.note(events, ids)
        self.texts += texts
        return b""

    def feed(self, payload: bytes) -> None:
        """Takes the payload of one event. Raises EngineReportedError, BadChunk, TooLarge."""
        found = self.form.one(payload) if self.form is not None and self._may_wait(payload) else None
        if found is not None:
            self._unread += len(payload)
            self.tally.transcript.note(payload, found[1])
            self.texts.append(found[0])
            return
        try:
            self._feed(payload)
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error

    def _may_wait(self, events: bytes) -> bool:
        """Returns whether the texts of these events may be taken unread, so that their size is not counted yet."""
        return len(self.texts) <= MOST_TEXTS and self._unread + len(events) <= _MOST_UNREAD_BYTES

    def _feed(self, payload: bytes) -> None:
        chunk = parse(payload)
        self._settle_texts()
        if any(choice.get("index", 0) >= self._choices_asked for choice in chunk["choices"]):
            raise BadChunk("a choice that nobody asked for")  # before anything is kept of it
        if chunk["choices"]:
            self._learn(payload, chunk)
            self.tally.transcript.remember(payload)
            self.tally.take_chunk(chunk, answers_per_prompt=self._answers_per_prompt)
        elif isinstance(chunk.get("usage"), dict):
            self.tally.take_usage(chunk["usage"])
        chunk.pop("usage", None)
        choices = chunk.pop("choices", None) or ()
        for key, value in chunk.items():
            if value is not None and key not in self._head:
                self._head[key] = value
                self._held += len(payload)
        for choice in choices:
            self._held += self._take(choice)
        if self._held > self._largest:
            raise TooLarge("an answer", self._largest)

    def _learn(self, payload: bytes, chunk: dict[str, Any]) -> None:
        form = self._forms.new_form(payload, chunk)
        if form is None:
            return
        if self._token_ids:
            self._forms.slow(SlowPath.TOKEN_IDS)
        else:
            self.form = self.tally.transcript.form = form

    def answer(self) -> bytes:
        """Returns the whole answer's body from what was fed. Raises BadChunk."""
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
        first = head_of(head)
        choices = [self._finished(self._choices[index]) for index in sorted(self._choices)]
        if not choices:
            raise BadChunk("no choice")
        usage = self.tally.statement()
        rest: dict[str, Any] = {}
        if self._vllm:
            usage = dict.fromkeys(_USAGE_FIELDS) | usage
            if isinstance(usage["prompt_tokens_details"], dict):
                usage["prompt_tokens_details"] = dict.fromkeys(_PROMPT_DETAIL_FIELDS) | usage["prompt_tokens_details"]
            rest = dict.fromkeys(_CHAT_FIELDS if self._chat else _COMPLETION_FIELDS)
        return orjson.dumps(first | {"choices": choices} | rest | {"usage": usage} | head)

    def _finished(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Returns a choice in the form of whole answers, which differs in some points from that of vLLM's streams."""
        choice = joined(choice)
        if choice["logprobs"] is not None:
            choice["logprobs"] = joined(choice["logprobs"])
        if not self._chat:
            if self._vllm and choice["logprobs"] is not None:
                choice["logprobs"] |= logprobs.offsets(choice["logprobs"])
            return choice
        message = collect_calls.finished(choice["message"], keep_blank=self._vllm and self._forced)
        if self._vllm and message["reasoning"] and not message["content"] and not self._forced:
            message["content"] = None
        return choice | {"message": message}

    def _settle_texts(self) -> None:
        if self.texts:
            text = orjson.loads(b'"%b"' % b"".join(self.texts))
            self._held += PIECE * len(self.texts)
            self.texts.clear()
            self._unread = 0
            choice = self._choices[0]
            self._held += grow(choice["message"], "content", text) if self._chat else grow(choice, "text", text)

    def _take(self, part: dict[str, Any]) -> int:
        """Adds a choice of one chunk. Returns about how many bytes that adds."""
        index = part.get("index", 0)
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = self._empty_choice(index)
        more = PIECE
        if self._token_ids:
            for key in ("prompt_token_ids", "token_ids"):
                if isinstance(part.get(key), list):
                    more += grow(choice, key, part[key])
        if self._chat:
            message = choice["message"]
            for key, value in (part.get("delta") or {}).items():
                if key in collect_calls.NAMES:
                    more += collect_calls.add(message, key, value) if value else 0
                elif key != "role" and value is not None:
                    more += grow(message, key, value)
        else:
            more += grow(choice, "text", part.get("text") or "")
        found = part.get("logprobs")
        if isinstance(found, dict):
            if choice["logprobs"] is None:
                choice["logprobs"] = {}
            for key, value in found.items():
                if value is not None or key not in choice["logprobs"]:
                    more += grow(choice["logprobs"], key, value)
        for key in ("finish_reason", "stop_reason"):
            if part.get(key) is not None:
                choice[key] = part[key]
        return more

    def _empty_choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        fields: tuple[str, ...] = _CHAT_CHOICE_FIELDS[:3]
        if self._vllm:
            message |= dict.fromkeys(_MESSAGE_FIELDS)
            fields = _CHAT_CHOICE_FIELDS if self._chat else _COMPLETION_CHOICE_FIELDS
        return {"index": index, **({"message": message} if self._chat else {"text": ""}), **dict.fromkeys(fields)}

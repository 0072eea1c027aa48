"""Why chunks of a stream have to be parsed instead of being edited as bytes: pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from ..engine.chunk import has_text
from .form import RunningForm


class SlowPath(StrEnum):
    """A metric has these as its label. All but the first follow from what a request asks for, or a model does."""

    UNKNOWN_FORM = "unknown_form"
    """Only the bytes explain it: the engine writes its chunks in a form that `form` does not know."""
    NO_TOKEN_IDS = "no_token_ids"
    SEVERAL_CHOICES = "several_choices"
    LOGPROBS = "logprobs"
    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"
    USAGE = "usage"
    """The chunk has usage, as every chunk of a request with `continuous_usage_stats`."""
    TOKEN_IDS = "token_ids"
    """The client wants the token ids within an answer that is gathered."""


class FormFinder:
    """Reads the form of a stream's running chunks off those that came the slow way, and tells why others came so."""

    __slots__ = ("_form", "_last_reason", "_on_slow_path")

    def __init__(self, on_slow_path: Callable[[SlowPath], None]) -> None:
        self._on_slow_path = on_slow_path
        self._form: RunningForm | None = None
        self._last_reason: SlowPath | None = None

    def new_form(self, payload: bytes, chunk: dict[str, Any]) -> RunningForm | None:
        """Returns the form of this chunk, which has choices, if it is a running chunk in another form than before."""
        reason = _reason(chunk)
        if reason is SlowPath.UNKNOWN_FORM:
            if self._form is not None and self._form.one(payload) is not None:  # it came along with other chunks
                return None
            form = RunningForm.of(payload)
            if form is not None:
                self._form = form
                return form
        if reason is not None:
            self.slow(reason)
        return None

    def slow(self, reason: SlowPath) -> None:
        """Tells why a running chunk takes the slow path."""
        if reason is not self._last_reason:
            self._last_reason = reason
            self._on_slow_path(reason)


def _reason(chunk: dict[str, Any]) -> SlowPath | None:
    """Returns None for chunks that every stream has once: with a role, with the prompt's token ids, or at the end."""
    choices = chunk["choices"]
    choice, delta = choices[0], choices[0].get("delta")
    if choice.get("finish_reason") or choice.get("prompt_token_ids") or chunk.get("prompt_token_ids"):
        return None
    if delta is not None and (not delta or ("role" in delta and not has_text(choice))):
        return None
    if len(choices) > 1 or choice.get("index"):
        return SlowPath.SEVERAL_CHOICES
    if choice.get("logprobs") is not None:
        return SlowPath.LOGPROBS
    if delta:
        if delta.get("reasoning") or delta.get("reasoning_content"):
            return SlowPath.REASONING
        if delta.get("tool_calls") or delta.get("function_call"):
            return SlowPath.TOOL_CALLS
    if chunk.get("usage") is not None:
        return SlowPath.USAGE
    if choice.get("token_ids") is None:
        return SlowPath.NO_TOKEN_IDS
    return SlowPath.UNKNOWN_FORM

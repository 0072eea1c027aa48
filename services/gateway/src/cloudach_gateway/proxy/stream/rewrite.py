"""Turns the engine's chunks into the client's: pure, one instance for each stream.

The gateway asks the engine for more than the client did (token ids, usage), so that it bills exactly. That is noted
here and taken out again. A running chunk in a form of vLLM is edited as bytes (see `form`). Every other chunk is
parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from openai_wire.sse import DONE_FRAME

from ..engine.chunk import SHAPE_ERRORS, BadChunk, parse
from .client_view import ClientView, UsageForm
from .express import Shape
from .form import DATA, END, QUOTE, RunningForm, head_of, is_text
from .slow_path import FormFinder, SlowPath
from .tally import Tally
from .transcript import MOST_OF_ONE


class StreamRewriter:
    """Takes the engine's events in order and returns the bytes for the client, possibly none."""

    __slots__ = (
        "_form",
        "_forms",
        "_held",
        "_in_join",
        "_in_start",
        "_on_begun",
        "_out_between",
        "_out_join",
        "_out_start",
        "_report",
        "_tail",
        "choices_seen",
        "shape",
        "tally",
        "view",
    )

    def __init__(
        self,
        view: ClientView,
        tally: Tally,
        *,
        on_begun: Callable[[], None] = lambda: None,
        on_slow_path: Callable[[SlowPath], None] = lambda reason: None,
        report: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """on_slow_path: is told why running chunks have to be parsed. report: gives the failovers, if the client wants
        them named on its last chunk."""
        self.view = view
        self.tally = tally
        self.choices_seen = False  # whether any chunk with a choice came: the engine has begun to answer
        self._on_begun = on_begun
        self._report = report
        self._held: dict[str, Any] | None = None  # the last chunk with a choice, which waits for the usage
        # The bytes around the text in the running chunks of this stream, known after the first of them.
        self._in_start = b"nothing yet"
        self._in_join = b""
        self._out_start = b""
        self._out_join = b""
        self._form: RunningForm | None = None
        self._forms = FormFinder(on_slow_path)
        self.shape: Shape | None = None  # the same bytes for `Express`, which does without `relay`
        self._out_between = b""
        self._tail = b',"usage":null}\n\n' if view.usage is UsageForm.EXTRA_CHUNK else b"}\n\n"

    def relay(self, events: bytes) -> bytes | None:
        """Returns the client's bytes, possibly none, for whole events that are all running chunks.

        Returns None if any of them is something else. Then call `feed` with each of them.
        """
        start, join = self._in_start, self._in_join
        length = len(events)
        if self._held is not None or not events.endswith(END):  # the chunk that is held back comes first
            return None
        if not events.startswith(start):
            return self._relay_silent(events)
        if events.find(b"\n", len(start)) != length - 2:
            return self._relay_several(events)
        if length > MOST_OF_ONE:
            return None
        cut = events.find(join, len(start))  # no text has it: its quotes are escaped
        text, ids = events[len(start) : cut], events[cut + len(join) : -6]
        if cut < 0 or b"]" in ids or (QUOTE in text and not is_text(text)):
            return None
        self.tally.transcript.running += b"%b\n%b\n" % (text, ids)
        if self.view.token_ids:
            return self._out_start + events[len(start) : -3] + self._tail
        return self._out_start + text + self._out_join

    def _relay_silent(self, events: bytes) -> bytes | None:
        silent = None if self._form is None or self.view.token_ids else self._form.silent
        if silent is None or not events.startswith(silent):
            return None
        ids = events[len(silent) : -6]
        if b"]" in ids:
            return self._relay_several(events)
        self.tally.transcript.running += b"\n%b\n" % ids
        return b""

    def _relay_several(self, events: bytes) -> bytes | None:
        found = None if self._form is None or self.view.token_ids else self._form.split(events)
        if found is None:
            return None
        texts, ids = found
        self.tally.transcript.note(events, ids)
        if not texts:
            return b""
        return self._out_start + self._out_between.join(texts) + self._out_join

    def feed(self, payload: bytes) -> bytes:
        """Returns the client's bytes for one event's payload. Raises EngineReportedError, BadChunk."""
        try:
            return self._edit_parsed(payload)
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error

    def finish(self) -> bytes:
        """Returns the end of the client's stream, once the engine has sent [DONE]. Raises BadChunk."""
        if self._held is not None and self.tally.completion_tokens:
            self._held["usage"] = self.tally.statement()
        try:
            return self._release() + DONE_FRAME
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error

    def _edit_parsed(self, payload: bytes) -> bytes:
        chunk = parse(payload)
        if "model" in chunk:
            chunk["model"] = self.view.model
        if chunk.get("prompt_text", "") is None:
            del chunk["prompt_text"]  # vLLM's first chunk always has it
        choices = chunk.get("choices")
        if not choices:
            return self._edit_usage_chunk(chunk)
        if not self.choices_seen:
            self.choices_seen = True
            self._on_begun()
        self._learn(payload, chunk)
        self._count(payload, chunk, choices)
        if not self.view.token_ids and _is_placeholder(choices):
            return b""
        for choice in choices:
            _complete_calls(choice)
        frames = self._release()
        if any(choice.get("finish_reason") for choice in choices):
            if failovers := self._report():
                chunk["cloudach"] = {"failovers": failovers}
            if self.view.usage is UsageForm.LAST_CHOICE:
                self._held = chunk
                return frames
        if self.view.usage is UsageForm.EXTRA_CHUNK:
            chunk["usage"] = None
        return frames + _frame(chunk)

    def _count(self, payload: bytes, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> None:
        """Counts the tokens and takes out what the client did not ask for."""
        self.tally.transcript.remember(payload)
        self.tally.take_chunk(chunk, answers_per_prompt=self.view.answers_per_prompt)
        if self.view.usage is not UsageForm.EVERY_CHUNK:
            chunk.pop("usage", None)
        if not self.view.token_ids:
            for holder in (chunk, *choices):
                holder.pop("prompt_token_ids", None)
                holder.pop("token_ids", None)

    def _learn(self, payload: bytes, chunk: dict[str, Any]) -> None:
        """Remembers the bytes around the text, if this is a running chunk in a form that can be edited."""
        form = self._forms.new_form(payload, chunk)
        if form is None:
            return
        if self.view.usage is UsageForm.EVERY_CHUNK:
            self._forms.slow(SlowPath.USAGE)
            return
        out_start = form.start_with(head_of(chunk))
        if out_start is None:  # its head has more, which is to be kept
            self._forms.slow(SlowPath.UNKNOWN_FORM)
            return
        self._form = self.tally.transcript.form = form
        self._in_start, self._in_join = form.start, form.join
        self._out_start = out_start
        self._out_join = form.close_without_ids + self._tail
        self._out_between = self._out_join + self._out_start
        if not self.view.token_ids:
            self.shape = Shape.of(form, self._out_start, self._out_join)
            if self.shape is None:
                self._forms.slow(SlowPath.UNKNOWN_FORM)

    def _edit_usage_chunk(self, chunk: dict[str, Any]) -> bytes:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):  # the chunk says nothing, and the usage may come later
            return b""
        self.tally.take_usage(usage)
        if self.view.usage in (UsageForm.EXTRA_CHUNK, UsageForm.EVERY_CHUNK):
            return self._release() + _frame(chunk)
        if self._held is not None and chunk.get("system_fingerprint") is not None:
            self._held["system_fingerprint"] = chunk[
                "system_fingerprint"
            ]  # so vLLM writes it where nobody asks for usage
        return self._release()

    def _release(self) -> bytes:
        held, self._held = self._held, None
        if held is None:
            return b""
        if self.tally.usage is not None:
            held["usage"] = self.tally.usage
        return _frame(held)


def _is_placeholder(choices: list[dict[str, Any]]) -> bool:
    """Returns whether a chunk says nothing without its token ids."""
    return all(choice.get("delta") == {} and not choice.get("finish_reason") for choice in choices)


def _complete_calls(choice: dict[str, Any]) -> None:
    """Adds empty `arguments` to a chunk that names a tool's function, because OpenAI sends them and vLLM does not."""
    for call in (choice.get("delta") or {}).get("tool_calls") or ():
        function = call.get("function") or {}
        if function.get("name") is not None and function.get("arguments") is None:
            function["arguments"] = ""


def _frame(chunk: dict[str, Any]) -> bytes:
    return DATA + orjson.dumps(chunk) + b"\n\n"

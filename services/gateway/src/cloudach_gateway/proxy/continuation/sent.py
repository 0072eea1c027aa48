"""A transcript, read: what the client has been sent, and the form of it: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from ..engine.chunk import has_text, parse
from ..stream.form import choice_of, head_of
from ..stream.transcript import Transcript
from .cut import Step

_IN_FLIGHT = {"reasoning": "reasoning", "reasoning_content": "reasoning", "tool_calls": "tool calls"}


@dataclass(slots=True)
class Seen:
    """Of the events that the transcript still holds.

    head: what all chunks of the stream share. steps: one for each event. leading: how many events come before the
    first that has tokens or text. visible: whether the client has any of the answer. roles, prompts, ended: choices
    whose role, prompt ids or finish reason were told. characters_before: of the answer before the first step, where
    log probabilities tell it.
    """

    head: dict[str, Any] = field(default_factory=dict)
    chat: bool = False
    steps: list[Step] = field(default_factory=list)
    leading: int = 0
    visible: bool = False
    logprobs: bool = False
    obstacle: str | None = None
    roles: set[int] = field(default_factory=set)
    prompts: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    characters_before: int = 0
    _begun: bool = False

    @classmethod
    def of(cls, transcript: Transcript) -> Seen:
        """Raises BadChunk."""
        seen = cls()
        for payload in transcript.payloads():
            chunk = parse(payload)
            if not seen.head:
                seen.head = head_of(chunk)
            found = [seen._take(choice) for choice in chunk["choices"]]
            step = Step(tuple(token for ids, _ in found for token in ids), "".join(text for _, text in found))
            seen.steps.append(step)
            if not seen._begun and not step.ids and not step.text:
                seen.leading += 1
            else:
                seen._begun = True
        return seen

    def text_chunk(self, text: str) -> bytes:
        """An event that brings text and no token."""
        return self._chunk(choice_of(text, [], chat=self.chat))

    def last_chunk(self, reason: str) -> bytes:
        """An end that brings nothing else."""
        return self._chunk(choice_of("", [], chat=self.chat, finish_reason=reason))

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return orjson.dumps({**self.head, "choices": [choice]})

    def _take(self, choice: dict[str, Any]) -> tuple[list[int], str]:
        index = choice.get("index", 0)
        delta = choice.get("delta")
        ids = choice.get("token_ids")
        if delta is not None:
            self.chat = True
            if "role" in delta:
                self.roles.add(index)
            self._look_at(delta)
        if choice.get("prompt_token_ids") is not None:
            self.prompts.add(index)
        text = (delta.get("content") if delta is not None else choice.get("text")) or ""
        told = choice.get("logprobs")
        if told is not None:
            self._read_logprobs(told, sum(len(step.text) for step in self.steps))
        if choice.get("finish_reason"):
            self.ended.add(index)
        self.visible = self.visible or has_text(choice) or index in self.ended
        if text and ids is None:
            self.obstacle = self.obstacle or "no token ids"
        return ids or [], text

    def _look_at(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if value and name not in ("role", "content"):
                reason = _IN_FLIGHT.get(name, f"delta {name}")
                self.obstacle = self.obstacle or reason

    def _read_logprobs(self, told: dict[str, Any], shown: int) -> None:
        self.logprobs = True
        if told.get("text_offset"):
            self.characters_before = told["text_offset"][0] - shown
        for entry in told.get("content") or ():
            if entry["bytes"] != list(entry["token"].encode("utf-8", "replace")):
                self.obstacle = self.obstacle or "tokens named by id"

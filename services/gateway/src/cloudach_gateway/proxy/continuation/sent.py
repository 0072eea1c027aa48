"""Reads from the transcript of a stream what its client has been sent of the answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from ..engine.chunk import has_text, parse
from ..stream.form import choice_of, head_of
from ..stream.transcript import Transcript
from .resume_point import Step

_PARSED_FIELDS = {"reasoning": "reasoning", "reasoning_content": "reasoning", "tool_calls": "tool calls"}


@dataclass(slots=True)
class SentAnswer:
    """The part of an answer that the transcript still holds.

    head: the part that all chunks of the stream share. steps: one for each event. leading: how many events come before
    the first that has tokens or text. visible: the client has some of the answer. roles_told, prompts_told, ended:
    choices whose role, prompt ids or finish reason were told. characters_before: how many characters of the answer come
    before the first step, where log probabilities tell it. obstacle: why the answer cannot go on.
    """

    head: dict[str, Any] = field(default_factory=dict)
    chat: bool = False
    steps: list[Step] = field(default_factory=list)
    leading: int = 0
    visible: bool = False
    logprobs: bool = False
    obstacle: str | None = None
    roles_told: set[int] = field(default_factory=set)
    prompts_told: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    characters_before: int = 0
    _begun: bool = False

    @classmethod
    def of(cls, transcript: Transcript) -> SentAnswer:
        """Raises BadChunk."""
        sent = cls()
        for payload in transcript.payloads():
            chunk = parse(payload)
            if not sent.head:
                sent.head = head_of(chunk)
            found = [sent._take(choice) for choice in chunk["choices"]]
            step = Step(tuple(token for ids, _ in found for token in ids), "".join(text for _, text in found))
            sent.steps.append(step)
            if not sent._begun and not step.ids and not step.text:
                sent.leading += 1
            else:
                sent._begun = True
        return sent

    def text_chunk(self, text: str) -> bytes:
        """Returns the payload of an event that brings text and no token."""
        return self._chunk(choice_of(text, [], chat=self.chat))

    def last_chunk(self, reason: str) -> bytes:
        """Returns the payload of an event that ends the answer and brings nothing else."""
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
                self.roles_told.add(index)
            self._look_for_obstacle(delta)
        if choice.get("prompt_token_ids") is not None:
            self.prompts_told.add(index)
        text = (delta.get("content") if delta is not None else choice.get("text")) or ""
        found = choice.get("logprobs")
        if found is not None:
            self._read_logprobs(found, sum(len(step.text) for step in self.steps))
        if choice.get("finish_reason"):
            self.ended.add(index)
        self.visible = self.visible or has_text(choice) or index in self.ended
        if text and ids is None:
            self.obstacle = self.obstacle or "no token ids"
        return ids or [], text

    def _look_for_obstacle(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if value and name not in ("role", "content"):
                reason = _PARSED_FIELDS.get(name, f"delta {name}")
                self.obstacle = self.obstacle or reason

    def _read_logprobs(self, logprobs: dict[str, Any], shown: int) -> None:
        self.logprobs = True
        if logprobs.get("text_offset"):
            self.characters_before = logprobs["text_offset"][0] - shown
        for entry in logprobs.get("content") or ():
            if entry["bytes"] != list(entry["token"].encode("utf-8", "replace")):
                self.obstacle = self.obstacle or "tokens named by id"

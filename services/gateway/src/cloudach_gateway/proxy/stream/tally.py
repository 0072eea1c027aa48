"""The tokens that one request has used so far, from the engine's token ids or its usage figures: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..engine.chunk import has_text
from .bounds import UNBOUNDED, Bounds
from .transcript import Transcript

_MOST_NAMED = 4
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(slots=True)
class Stated:
    """Counts for choices without token ids: their chunks, and the usage on these if the engine states any.

    An engine with usage on the chunks of all choices states each choice's own. An engine that leaves out some of the
    choices states the whole request's.
    """

    tokens: dict[int, int] = field(default_factory=dict)  # for each choice, as its last chunk with usage stated them
    chunks: dict[int, int] = field(default_factory=dict)  # for each choice, how many came since then
    details: dict[int, dict[str, Any]] = field(default_factory=dict)  # for each choice, its usage without the counts
    all_chunks: int = 0

    def take_chunk(self, choice: int) -> None:
        """Counts a chunk with text and without token ids. `take_usage` comes next, if the chunk has usage."""
        self.chunks[choice] = self.chunks.get(choice, 0) + 1
        self.all_chunks += 1

    def take_usage(self, choice: int, usage: dict[str, Any], *, has_ids: bool) -> None:
        self.details[choice] = {k: v for k, v in usage.items() if k not in _COUNTS and v is not None}
        tokens = _count(usage, "completion_tokens", -1)
        if not has_ids and tokens >= 0:
            self.tokens[choice] = tokens
            self.chunks[choice] = 0

    def tokens_of(self, choice: int) -> int:
        return self.tokens.get(choice, 0) + self.chunks.get(choice, 0)

    def count(self) -> int:
        stated = sum(self.tokens.values())
        if self.chunks.keys() <= self.tokens.keys():
            return stated + sum(self.chunks.values())
        return max(stated, self.all_chunks)

    def detail(self) -> dict[str, Any]:
        """Returns the usage of all choices without the counts."""
        merged: dict[str, Any] = {}
        for details in self.details.values():
            for name, value in details.items():
                of_answers = name == "completion_tokens_details"
                merged[name] = _sum(merged[name], value) if of_answers and name in merged else value
        return merged


@dataclass(slots=True)
class Tally:
    """The token counts of one request.

    On the way token ids give exact counts, and `Stated` counts choices without them. `usage` is the engine's final
    statement, which overrides these counts.

    estimate: about how many tokens all `prompts` have. It counts once an engine has the request, until that engine says
    how many they are. No statement is believed if it is above `most`, or below what has been seen. disbelieved: such
    statements, for the log. finish_reasons: those of the choices that have ended, by their index.
    """

    estimate: int = 0
    prompts: int = 1
    cached_tokens: int = 0
    usage: dict[str, Any] | None = None
    by_chunk: bool = False  # the engine names no token ids, so a chunk with text counts as one token until it says more
    most: Bounds = UNBOUNDED
    transcript: Transcript = field(default_factory=Transcript)
    disbelieved: list[str] = field(default_factory=list)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    _at_engine: bool = False
    _final: int | None = None
    _final_prompt: int | None = None
    _prompts: dict[int, int] = field(default_factory=dict)  # for each prompt, its tokens
    _stated: Stated | None = None

    @property
    def prompt_tokens(self) -> int:
        if self._final_prompt is not None:
            return self._final_prompt
        named = min(sum(self._prompts.values()), self._most_prompt)
        if len(self._prompts) >= self.prompts:
            return named
        return max(named, self.estimate) if self._at_engine or self.completion_tokens else 0

    @property
    def completion_tokens(self) -> int:
        if self._final is not None:
            return self._final
        count = self.transcript.count + (0 if self._stated is None else self._stated.count())
        return min(count, self.most.answer)

    def so_far(self) -> tuple[int, int, int]:
        """Returns the prompt's, the completion's and the cached tokens."""
        return self.prompt_tokens, self.completion_tokens, self.cached_tokens

    def prompt_sent(self) -> None:
        """An engine has the request from now on."""
        self._at_engine = True

    def engine_lost(self) -> None:
        """The engine has refused the request or has broken off. What it said before still counts."""
        self._at_engine = False

    def came_to_nothing(self) -> None:
        """The request has failed. A client that got no token pays for no prompt either."""
        self._at_engine = False
        if not self.completion_tokens:
            self._prompts.clear()
            self._final_prompt = None
            self.cached_tokens = 0

    def take_chunk(self, chunk: dict[str, Any], *, answers_per_prompt: int) -> None:
        """Counts a chunk that has choices."""
        if isinstance(chunk.get("prompt_token_ids"), list):
            self._take_prompt_ids(0, chunk["prompt_token_ids"])
        usage = chunk.get("usage")
        for choice in chunk["choices"]:
            index = choice.get("index", 0)
            if isinstance(choice.get("prompt_token_ids"), list):
                self._take_prompt_ids(index // answers_per_prompt, choice["prompt_token_ids"])
            if isinstance(choice.get("token_ids"), list):
                self.transcript.add(choice["token_ids"])
            elif self.by_chunk and has_text(choice):
                self._stated_counts().take_chunk(index)
            if reason := choice.get("finish_reason"):
                self.transcript.ended.add(index)
                self.finish_reasons[index] = reason
        if isinstance(usage, dict):
            self._take_running(usage, chunk["choices"][0], answers_per_prompt)

    def take_usage(self, usage: dict[str, Any]) -> None:
        """Takes the engine's final statement for the whole request, and corrects impossible figures in it."""
        named, most = len(self.transcript.prompt_ids or ()), self._most_prompt
        seen = 0 if self.by_chunk else min(self.transcript.count, self.most.answer)
        prompt = self._believed(usage, "prompt_tokens", named, most, self.prompt_tokens)
        answer = self._believed(usage, "completion_tokens", seen, self.most.answer, self.completion_tokens)
        self._final_prompt, self._final = prompt, answer
        total = prompt + answer
        if usage.get("total_tokens", total) != total:
            usage["total_tokens"] = total
        self._take_cached(usage)
        self.usage = usage

    def forget_answer(self) -> None:
        """Forgets what was generated, because nobody got it and it is generated again."""
        self._final, self._final_prompt, self._stated, self.usage = None, None, None, None
        self._prompts.clear()
        self.finish_reasons.clear()
        self.transcript = Transcript()

    def statement(self) -> dict[str, Any]:
        """Returns `usage` for the client: the engine's own, or else the counts with the engine's details."""
        return self.usage or {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            **({} if self._stated is None else self._stated.detail()),
        }

    def _take_prompt_ids(self, number: int, ids: list[int]) -> None:
        self.transcript.prompt_ids = ids
        self._take_prompt(number, len(ids))

    def _take_prompt(self, number: int, tokens: int) -> None:
        """number: which prompt of the request it is, from 0."""
        self._prompts[number] = tokens

    def _take_running(self, usage: dict[str, Any], choice: dict[str, Any], answers_per_prompt: int) -> None:
        """Takes the usage on a chunk of this choice. Its token ids, if there are any, have been counted."""
        index, stated = choice.get("index", 0), self._stated_counts()
        stated_prompt = _count(usage, "prompt_tokens", -1) >= 0
        tokens = self._believed(usage, "prompt_tokens", 0, self.most.prompt, self.prompt_tokens)
        self._believed(usage, "completion_tokens", 0, self.most.answer, stated.tokens_of(index))
        if stated_prompt:
            self._take_prompt(index // answers_per_prompt, tokens)
        self._take_cached(usage)
        stated.take_usage(index, usage, has_ids=isinstance(choice.get("token_ids"), list))

    @property
    def _most_prompt(self) -> int:
        """The most tokens of all prompts. Prompt ids that were named count, because they are more than a statement."""
        return max(self.most.prompt, len(self.transcript.prompt_ids or ()))

    def _stated_counts(self) -> Stated:
        if self._stated is None:
            self._stated = Stated()
        return self._stated

    def _take_cached(self, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached_tokens = self._believed(details, "cached_tokens", 0, self.prompt_tokens, self.cached_tokens)

    def _believed(self, usage: dict[str, Any], name: str, least: int, most: int, default: int) -> int:
        """Returns one of the engine's figures within its bounds, and corrects it in `usage`. default: if it is not
        there."""
        if name not in usage:
            return max(least, min(default, most))
        stated = usage[name]
        count = max(least, min(_count(usage, name, default), most))
        if count != stated and stated is not None:
            usage[name] = count
            if len(self.disbelieved) < _MOST_NAMED:
                said = stated if isinstance(stated, int | float) else type(stated).__name__
                self.disbelieved.append(f"{name} {said}, taken for {count}")
        return count


def _count(usage: dict[str, Any], name: str, default: int) -> int:
    value = usage.get(name)
    return value if type(value) is int and value >= 0 else default


def _sum(held: Any, more: Any) -> Any:
    """Returns the sum of two values, or a dict with the sums of theirs, at any depth."""
    if isinstance(held, dict) and isinstance(more, dict):
        return held | {name: _sum(held[name], value) if name in held else value for name, value in more.items()}
    if isinstance(held, int | float) and isinstance(more, int | float):
        return held + more
    return more

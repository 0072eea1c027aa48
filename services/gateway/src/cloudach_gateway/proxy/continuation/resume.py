"""The rest of an answer from another engine, as the broken stream's own payloads: pure."""

from __future__ import annotations

from typing import Any

import orjson

from ..engine.chunk import NotReproducible, parse
from ..stream import logprobs
from ..stream.form import CompletionEdit, choice_of, head_bytes, head_in, with_head
from ..stream.transcript import Transcript
from .cut import Cut
from .sent import Seen
from .stop_strings import Hold, Seam


class Resumed:
    """The rest of an answer, from /v1/completions, behind what was sent of it."""

    def __init__(
        self,
        seen: Seen,
        cut: Cut,
        *,
        chat: bool,
        prompt_tokens: int,
        again: list[int],
        characters: int,
        top: int,
        seam: Seam | None,
        hold: Hold | None,
        transcript: Transcript,
    ) -> None:
        """again: tokens that come first and that the client has seen. characters: what is added to offsets into the
        text. top: how many of the likeliest tokens are told. hold: set where the engine was asked not to hold back what
        the first one held back."""
        self.ended = False
        self._seen = seen
        self._chat = chat
        self._prompt_tokens = prompt_tokens
        self._told = cut.kept
        self._counted = cut.kept + len(again)
        self._owed = cut.owed
        self._again = again
        self._kept = cut.kept
        self._characters = characters
        self._top = top
        self._seam = seam
        self._hold = hold
        self._transcript = transcript
        self._edit: CompletionEdit | None = None  # once nothing in running chunks has to be looked at

    def adapt(self, payload: bytes) -> bytes | None:
        if self._edit is not None:
            edited = self._edit.apply(payload)
            if edited is not None:
                return edited or None
        chunk = parse(payload)
        usage = chunk.get("usage")
        if chunk["choices"]:
            (found,) = chunk["choices"]
            choice = None if self.ended else self._choice(found)
            if choice is None:
                return None
            chunk["choices"] = [choice]
            self._learn(payload)
        if isinstance(usage, dict):
            self._total(usage, final=not chunk["choices"])
            chunk.pop("metrics", None)  # of the continuation alone
        return orjson.dumps(with_head(chunk, self._seen.head))

    def _learn(self, payload: bytes) -> None:
        """From here on running chunks are edited as bytes, if nothing in them has to be looked at."""
        done = self._edit is not None or self.ended
        if done or self._owed or self._again or self._seam or self._hold or self._seen.logprobs:
            return
        if head := head_in(payload):
            self._edit = CompletionEdit(head, head_bytes(self._seen.head), chat=self._chat)

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        self._look_across(choice)
        ids, text, reason = choice["token_ids"], choice["text"], choice.get("finish_reason")
        self._told += len(ids)
        known = self._pass_tokens(ids)
        text = text[self._pass_text(text) :]
        if reason and (self._owed or self._again):
            raise NotReproducible("the answer ended earlier")
        if self._hold is not None:
            text = _held(self._hold, text, choice)
        ids = ids[known:]
        if not text and not ids and not reason:
            return None
        told = (
            self._logprobs(choice["logprobs"], slice(known, known + len(ids))) if self._seen.logprobs and ids else None
        )
        stop = choice.get("stop_reason")
        return choice_of(text, ids, chat=self._chat, logprobs=told, finish_reason=reason, stop_reason=stop)

    def _look_across(self, choice: dict[str, Any]) -> None:
        """Ends the choice at a stop string that began before the cut."""
        if self._seam is None:
            return
        ids, text = choice["token_ids"], choice["text"]
        found = self._seam.feed(text, len(ids))
        if found is not None and self._seam.is_first(*found, choice.get("stop_reason"), len(text)):
            stop, end = found
            if len(ids) > 1:
                ids = ids[: logprobs.tokens_up_to(end, choice["logprobs"])]
            choice.update(text=text[:end], token_ids=ids, finish_reason="stop", stop_reason=stop)
            self.ended = True
        if self._seam.passed:
            self._seam = None

    def _pass_tokens(self, ids: list[int]) -> int:
        """How many of these tokens the client has; the others are new."""
        known = min(len(ids), len(self._again))
        if ids[:known] != self._again[:known]:
            raise NotReproducible("other tokens")
        self._again = self._again[known:]
        if known and known < len(ids):
            self._transcript.doubtful = self._counted + len(ids) - known
        return known

    def _pass_text(self, text: str) -> int:
        """How many of these characters the client has."""
        known = min(len(text), len(self._owed))
        if text[:known] != self._owed[:known]:
            raise NotReproducible("other text")
        self._owed = self._owed[known:]
        return known

    def _logprobs(self, told: dict[str, Any], tokens: slice) -> dict[str, Any]:
        if not self._chat:
            return logprobs.shifted(told, tokens, characters=self._characters)
        try:
            return logprobs.as_chat(told, tokens, top=self._top)
        except logprobs.Ambiguous as error:
            raise NotReproducible(str(error)) from error

    def _total(self, usage: dict[str, Any], *, final: bool) -> None:
        """The whole request's usage. What the prefix cache had of the continuation is none of the tenant's prompt."""
        answer = self._told if self.ended else self._kept + usage["completion_tokens"]
        if not final:
            answer = max(answer, self._counted)
        usage["prompt_tokens"] = self._prompt_tokens
        usage["total_tokens"] = self._prompt_tokens + answer
        usage["completion_tokens"] = answer
        if usage.get("prompt_tokens_details") is not None:
            usage["prompt_tokens_details"] = None


def _held(hold: Hold, text: str, choice: dict[str, Any]) -> str:
    if not choice.get("finish_reason"):
        return hold.feed(text)
    stop = choice.get("stop_reason")
    if isinstance(stop, str):
        return hold.last(text, stop)
    # The token that ended it has no text for who does not ask for it as we did. Among others it is not told apart.
    alone = choice["finish_reason"] == "stop" and len(choice["token_ids"]) == 1
    return hold.last("" if alone else text)

"""The rest of an answer from another engine, adapted to be the broken stream's: pure."""

from __future__ import annotations

from typing import Any

import orjson

from ..engine.chunk import NotReproducible, parse
from ..stream import logprobs
from ..stream.form import CompletionEdit, choice_of, head_bytes, head_in, with_head
from ..stream.transcript import Transcript
from .resume_point import ResumePoint
from .sent import SentAnswer
from .stop_strings import BoundarySearch, HeldBackText


class Resumed:
    """Adapts the rest of an answer, which comes from /v1/completions, to what the client has been sent of it."""

    def __init__(
        self,
        sent: SentAnswer,
        point: ResumePoint,
        *,
        chat: bool,
        prompt_tokens: int,
        again: list[int],
        characters: int,
        top: int,
        search: BoundarySearch | None,
        held_back: HeldBackText | None,
        transcript: Transcript,
    ) -> None:
        """again: the tokens that come first and that the client has. characters: offsets into the text grow by this.
        top: how many of the likeliest tokens are told. held_back: holds text back in the engine's place, where the
        engine was asked not to.
        """
        self.ended = False
        self._sent = sent
        self._chat = chat
        self._prompt_tokens = prompt_tokens
        self._tokens = point.kept
        self._counted = point.kept + len(again)
        self._owed = point.owed
        self._again = again
        self._kept = point.kept
        self._characters = characters
        self._top = top
        self._search = search
        self._held_back = held_back
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
        return orjson.dumps(with_head(chunk, self._sent.head))

    def _learn(self, payload: bytes) -> None:
        """Has running chunks edited as bytes from here on, if nothing in them has to be looked at."""
        done = self._edit is not None or self.ended
        if done or self._owed or self._again or self._search or self._held_back or self._sent.logprobs:
            return
        if head := head_in(payload):
            self._edit = CompletionEdit(head, head_bytes(self._sent.head), chat=self._chat)

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        self._look_across(choice)
        ids, text, reason = choice["token_ids"], choice["text"], choice.get("finish_reason")
        self._tokens += len(ids)
        known = self._pass_tokens(ids)
        text = text[self._pass_text(text) :]
        if reason and (self._owed or self._again):
            raise NotReproducible("the answer ended earlier")
        if self._held_back is not None:
            text = _let_out(self._held_back, text, choice)
        ids = ids[known:]
        if not text and not ids and not reason:
            return None
        found = (
            self._logprobs(choice["logprobs"], slice(known, known + len(ids))) if self._sent.logprobs and ids else None
        )
        stop = choice.get("stop_reason")
        return choice_of(text, ids, chat=self._chat, logprobs=found, finish_reason=reason, stop_reason=stop)

    def _look_across(self, choice: dict[str, Any]) -> None:
        """Ends the choice at a stop string that began before the resume point."""
        if self._search is None:
            return
        ids, text = choice["token_ids"], choice["text"]
        found = self._search.feed(text, len(ids))
        if found is not None and self._search.is_first(*found, choice.get("stop_reason"), len(text)):
            stop, end = found
            if len(ids) > 1:
                ids = ids[: logprobs.tokens_up_to(end, choice["logprobs"])]
            choice.update(text=text[:end], token_ids=ids, finish_reason="stop", stop_reason=stop)
            self.ended = True
        if self._search.passed:
            self._search = None

    def _pass_tokens(self, ids: list[int]) -> int:
        """Returns how many of these tokens the client has. The others are new."""
        known = min(len(ids), len(self._again))
        if ids[:known] != self._again[:known]:
            raise NotReproducible("other tokens")
        self._again = self._again[known:]
        if known and known < len(ids):
            self._transcript.doubtful = self._counted + len(ids) - known
        return known

    def _pass_text(self, text: str) -> int:
        """Returns how many of these characters the client has."""
        known = min(len(text), len(self._owed))
        if text[:known] != self._owed[:known]:
            raise NotReproducible("other text")
        self._owed = self._owed[known:]
        return known

    def _logprobs(self, found: dict[str, Any], tokens: slice) -> dict[str, Any]:
        if not self._chat:
            return logprobs.shifted(found, tokens, characters=self._characters)
        try:
            return logprobs.as_chat(found, tokens, top=self._top)
        except logprobs.Ambiguous as error:
            raise NotReproducible(str(error)) from error

    def _total(self, usage: dict[str, Any], *, final: bool) -> None:
        """Turns the continuation's usage into that of the whole request.

        Cached tokens are left out, because they are the answer's more than the prompt's.
        """
        answer = self._tokens if self.ended else self._kept + usage["completion_tokens"]
        if not final:
            answer = max(answer, self._counted)
        usage["prompt_tokens"] = self._prompt_tokens
        usage["total_tokens"] = self._prompt_tokens + answer
        usage["completion_tokens"] = answer
        if usage.get("prompt_tokens_details") is not None:
            usage["prompt_tokens_details"] = None


def _let_out(held_back: HeldBackText, text: str, choice: dict[str, Any]) -> str:
    """Returns the text that the client gets now."""
    if not choice.get("finish_reason"):
        return held_back.feed(text)
    stop = choice.get("stop_reason")
    if isinstance(stop, str):
        return held_back.last(text, stop)
    # A last token that is no text (end of sequence) has text here, because the gateway asked for stop strings in the
    # output; the client did not. Among other tokens of one event it cannot be told apart.
    alone = choice["finish_reason"] == "stop" and len(choice["token_ids"]) == 1
    return held_back.last("" if alone else text)

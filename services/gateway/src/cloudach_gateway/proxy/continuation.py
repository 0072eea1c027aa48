"""How a stream that broke goes on with another engine: what to ask it, and its answer as the first stream's: pure.

    plan(path, fields, transcript) -> Continuation -> take_over() once -> adapt() each payload

docs/failover.md says what is continued, restarted or given up, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from .carry import CHAT, COMPLETIONS, answer_limit, choices, continued, is_sampled, obstacle, stop_strings
from .chunk import BadChunk
from .cut import Cut, Stops, choose
from .resume import Adapter, NotReproducible, Restarted, Resumed
from .seen import Seen
from .transcript import Transcript

__all__ = ["CannotContinue", "Continuation", "NotReproducible", "is_abort", "obstacle", "plan"]


class CannotContinue(Exception):
    """The stream cannot go on exactly. `reason` is short: for log, metric and docs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Continuation:
    """path, body: what to ask another engine; body None: nothing is left to generate, only usage and [DONE] are
    missing. final: a payload to go out before them. restarted: whether all of the answer is generated anew.
    redrawn: whether a NotReproducible may be put right by trying again, because tokens are drawn.
    """

    __slots__ = ("_adapter", "_rewind", "_transcript", "body", "final", "path", "redrawn", "restarted")

    def __init__(
        self,
        path: str,
        body: bytes | None,
        *,
        final: bytes | None = None,
        adapter: Adapter | None = None,
        transcript: Transcript | None = None,
        rewind: tuple[int, int, bytes | None] | None = None,
        restarted: bool = False,
        redrawn: bool = False,
    ) -> None:
        self.path = path
        self.body = body
        self.final = final
        self.restarted = restarted
        self.redrawn = redrawn
        self._adapter = adapter
        self._transcript = transcript
        self._rewind = rewind

    def take_over(self) -> int:
        """Call it once, when the first payload of the new stream has come: the transcript forgets what the new stream
        tells again. How many tokens that were counted will be counted again: take them off the tally."""
        if self._rewind is None or self._transcript is None:
            return 0
        tokens, events, sent = self._rewind
        again = self._transcript.count - tokens
        self._transcript.rewind(tokens=tokens, events=events, sent=sent)
        self._rewind = None
        return again

    def adapt(self, payload: bytes) -> bytes | None:
        """One payload of the new stream as the broken stream would have gone on; None: it has nothing new.

        Raises NotReproducible when it differs from what was sent, EngineReportedError, BadChunk.
        """
        if self._adapter is None:
            raise RuntimeError("nothing was left to generate")
        try:
            return self._adapter.adapt(payload)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadChunk(f"not of a chunk's shape: {error!r}") from error


def plan(
    path: str,
    fields: Mapping[str, Any],
    transcript: Transcript,
    *,
    ids_shown: bool = False,
    max_model_len: int | None = None,
) -> Continuation:
    """How the stream goes on. Raises CannotContinue.

    fields: the parsed body that the first engine got, asked for token ids and usage. ids_shown: whether the client
    sees the token ids: then the same have to come again. max_model_len: the engine's context in tokens, needed for a
    chat request that names no longest answer.
    """
    seen = Seen.of(transcript)
    count = transcript.count
    shown = ids_shown or seen.logprobs
    if len(seen.ended) >= choices(fields):
        return Continuation(path, None)
    if transcript.whole and not seen.visible and not (count and shown):
        adapter = Restarted(seen)
        rewind = (0, seen.leading, None)
        return Continuation(
            path, orjson.dumps(fields), adapter=adapter, transcript=transcript, rewind=rewind, restarted=True
        )
    reason = obstacle(path, fields) or seen.obstacle or _without_ids(path, transcript, seen)
    if reason is not None:
        raise CannotContinue(reason)
    sampled = is_sampled(fields)
    stops = _stops(fields)
    cut = choose(seen.steps, count, stops, whole=transcript.whole, sampled=sampled, doubtful=transcript.doubtful)
    if cut is None:
        raise CannotContinue("no clean cut")
    if shown and sampled and cut.kept < count:
        raise CannotContinue("sampled tokens to come again")
    return _continue(path, fields, transcript, seen, cut, shown=shown, sampled=sampled, max_model_len=max_model_len)


def is_abort(payload: bytes) -> bool:
    """Whether an engine ends the stream only because it shuts down. [DONE] follows, but it is no end of the answer:
    such a payload is neither for the client nor for the transcript."""
    return b'"finish_reason":"abort"' in payload


def _continue(
    path: str,
    fields: Mapping[str, Any],
    transcript: Transcript,
    seen: Seen,
    cut: Cut,
    *,
    shown: bool,
    sampled: bool,
    max_model_len: int | None,
) -> Continuation:
    ids = [int(number) for number in bytes(transcript.ids).split(b",")[:-1]]
    prompt = transcript.prompt_ids or []
    left = _left(path, fields, len(prompt), cut.kept, max_model_len)
    if left <= 0:
        return Continuation(path, None, final=seen.last_chunk("length"))
    body = continued(path, fields, prompt=prompt + ids[: cut.kept], kept=cut.kept, left=left, logprobs=seen.logprobs)
    adapter = Resumed(
        seen,
        chat=path == CHAT,
        prompt_tokens=len(prompt),
        kept=cut.kept,
        owed=cut.owed,
        again=ids[cut.kept :] if shown else [],
        characters=seen.characters_before + cut.start,
        top=fields.get("top_logprobs") or 0,
        transcript=transcript,
    )
    sent = seen.text_chunk(cut.sent) if cut.sent else None
    return Continuation(
        COMPLETIONS,
        orjson.dumps(body),
        adapter=adapter,
        transcript=transcript,
        rewind=None if shown else (cut.kept, cut.steps, sent),
        redrawn=sampled and bool(cut.owed),
    )


def _left(path: str, fields: Mapping[str, Any], prompt: int, kept: int, max_model_len: int | None) -> int:
    limits = []
    if (named := answer_limit(path, fields)) is not None:
        limits.append(named - kept)
    if max_model_len is not None:
        limits.append(max_model_len - prompt - kept)
    if not limits:
        raise CannotContinue("unknown context length")
    return min(limits)


def _stops(fields: Mapping[str, Any]) -> Stops:
    longest = max((len(stop) for stop in stop_strings(fields)), default=1)
    return Stops(longest, bool(fields.get("include_stop_str_in_output")))


def _without_ids(path: str, transcript: Transcript, seen: Seen) -> str | None:
    if transcript.prompt_ids is None or not transcript.count:
        return "no token ids"
    if path == CHAT and not seen.visible:
        return "no text yet"  # a parser may be at work: only its own engine knows what these tokens are
    return None

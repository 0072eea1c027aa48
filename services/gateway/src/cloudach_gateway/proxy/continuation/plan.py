"""How a stream that broke goes on with another engine: what to ask that engine, and how to adapt its answer: pure.

    detokenize_body(kind, fields, transcript) -> perhaps a body for /detokenize; that answer's text is `detokenized`
    plan(kind, fields, transcript, detokenized=…) -> Continuation -> take_over() once -> adapt() each payload

`conversation` calls these. docs/failover.md says what is continued, restarted or given up, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ..engine.chunk import SHAPE_ERRORS, BadChunk
from ..stream.transcript import Transcript
from .field_table import continued, is_sampled, obstacle, stop_strings
from .kinds import COMPLETIONS, KINDS, Kind, choices
from .restart import Restarted
from .resume import Resumed
from .resume_point import ResumePoint, later_point, latest_point, tokens_owed
from .sent import SentAnswer
from .stop_strings import BoundarySearch, HeldBackText, StopStrings

__all__ = ["CannotContinue", "Continuation", "detokenize_body", "kind_of", "plan"]

_MOST_REDRAWN = 2  # sampled tokens that have to bring the same text again; each further token makes that less likely


class CannotContinue(Exception):
    """The stream cannot go on exactly. `reason` is short, because the log says it and docs/failover.md lists it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Adapter(Protocol):
    @property
    def ended(self) -> bool:
        """Tells that the answer is at its end, though the engine goes on."""

    def adapt(self, payload: bytes) -> bytes | None: ...


class Continuation:
    """A continuation asks another engine for the rest, and turns its payloads into those of the broken stream.

    path, body: the request for the other engine. body is None where nothing is left to generate, so that only usage and
    [DONE] are missing. final: a payload that goes out before these two. restarted: all of the answer is generated anew.
    redrawn: another try may put a NotReproducible right, because the tokens are drawn at random.
    """

    __slots__ = ("_adapter", "_rewind", "_transcript", "body", "final", "path", "redrawn", "restarted")

    def __init__(
        self,
        path: str,
        body: bytes | None,
        *,
        final: bytes | None = None,
        adapter: _Adapter | None = None,
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
        """Makes the transcript forget what the new stream tells again. Call it once, when its first payload has come.

        Returns how many tokens were counted and will be counted again.
        """
        if self._rewind is None or self._transcript is None:
            return 0
        tokens, events, sent = self._rewind
        again = self._transcript.count - tokens
        self._transcript.rewind(tokens=tokens, events=events, sent=sent)
        self._rewind = None
        return again

    @property
    def ended(self) -> bool:
        """Tells that the answer is at its end, though the engine goes on: a stop string reached across the resume
        point.

        The caller may then close the engine's stream. `adapt` drops what still comes.
        """
        return self._adapter is not None and self._adapter.ended

    def adapt(self, payload: bytes) -> bytes | None:
        """Returns one payload of the new stream as the broken stream would have gone on; None if it has nothing new.

        Raises NotReproducible where it differs from what was sent, EngineReportedError, BadChunk.
        """
        if self._adapter is None:
            raise RuntimeError("nothing was left to generate")
        try:
            return self._adapter.adapt(payload)
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error


def kind_of(path: str) -> Kind:
    """Returns how the answers from an engine's path go on. Raises CannotContinue."""
    kind = KINDS.get(path)
    if kind is None:
        raise CannotContinue(f"answers from {path} are not continued")
    return kind


def detokenize_body(
    kind: Kind, fields: Mapping[str, Any], transcript: Transcript, *, ids_shown: bool = False
) -> bytes | None:
    """Returns the body of a POST /detokenize that helps `plan`; None where it would not help, which is the rule.

    The answer's `prompt` is what `plan` takes as `detokenized`: the text of the tokens behind the last point where all
    text is known to be complete. Without it these tokens are generated again. Sampled tokens hardly come out as before.
    Greedy tokens mostly do, but engines may round differently.
    """
    try:
        broken = _BrokenStream.of(kind, fields, transcript, ids_shown=ids_shown)
    except CannotContinue:
        return None
    point = broken.point
    if point is None or not broken.ids[point.kept :] or not point.unsent_by(broken.sent.steps):
        return None
    return orjson.dumps({"model": fields.get("model"), "tokens": broken.ids[point.kept :]})


def plan(
    kind: Kind,
    fields: Mapping[str, Any],
    transcript: Transcript,
    *,
    ids_shown: bool = False,
    max_model_len: int | None = None,
    detokenized: str | None = None,
) -> Continuation:
    """Returns how the stream goes on. Raises CannotContinue.

    fields: the parsed body that the first engine got, which asks for token ids and usage. ids_shown: the client sees
    the token ids, so the same ids have to come again. max_model_len: the engine's context in tokens, which is needed
    for a chat request without an answer limit. detokenized: the text that `detokenize_body` asked for.
    """
    sent = SentAnswer.of(transcript)
    if len(sent.ended | transcript.ended) >= choices(fields):
        return Continuation(kind.path, None)
    if _may_restart(transcript, sent, shown=ids_shown or sent.logprobs):
        return Continuation(
            kind.path,
            orjson.dumps(fields),
            adapter=Restarted(sent),
            transcript=transcript,
            rewind=(0, sent.leading, None),
            restarted=True,
        )
    broken = _BrokenStream.of(kind, fields, transcript, ids_shown=ids_shown)
    point = broken.point
    if point is None:
        raise CannotContinue("no clean cut")
    if detokenized is not None:
        point = later_point(point, sent.steps, transcript.count, broken.stops, detokenized) or point
    if broken.sampled and broken.shown and point.kept < transcript.count:
        raise CannotContinue("sampled tokens to come again")
    if broken.sampled and tokens_owed(point, sent.steps) > _MOST_REDRAWN:
        raise CannotContinue("sampled text to come again")
    return _resumed(kind, fields, transcript, broken, point, max_model_len)


@dataclass(slots=True)
class _BrokenStream:
    """A broken stream that could go on.

    point: where it would go on; None if there is no such point. shown: the client would notice other tokens, because it
    sees token ids or log probabilities.
    """

    sent: SentAnswer
    ids: list[int]
    stops: StopStrings
    point: ResumePoint | None
    sampled: bool
    shown: bool

    @classmethod
    def of(cls, kind: Kind, fields: Mapping[str, Any], transcript: Transcript, *, ids_shown: bool) -> _BrokenStream:
        """Raises CannotContinue."""
        sent = SentAnswer.of(transcript)
        reason = obstacle(kind, fields) or sent.obstacle or _gap_in(kind, transcript, sent)
        if reason is not None:
            raise CannotContinue(reason)
        stops = StopStrings(tuple(stop_strings(fields)), bool(fields.get("include_stop_str_in_output")))
        ids = [int(number) for number in bytes(transcript.ids).split(b",")[:-1]]
        point = latest_point(sent.steps, len(ids), stops, whole=transcript.whole, doubtful=transcript.doubtful)
        return cls(sent, ids, stops, point, is_sampled(fields), ids_shown or sent.logprobs)


def _resumed(
    kind: Kind,
    fields: Mapping[str, Any],
    transcript: Transcript,
    broken: _BrokenStream,
    point: ResumePoint,
    max_model_len: int | None,
) -> Continuation:
    sent, stops = broken.sent, broken.stops
    prompt = transcript.prompt_ids or []
    left = _left(kind, fields, len(prompt), point.kept, max_model_len)
    if left <= 0:
        return Continuation(kind.path, None, final=sent.last_chunk("length"))
    body = continued(
        kind, fields, prompt=prompt + broken.ids[: point.kept], kept=point.kept, left=left, logprobs=sent.logprobs
    )
    lagging = stops.held_back > 0 and point.pending is not None
    if lagging:  # the gateway holds text back itself, because the first engine had held some back
        body["include_stop_str_in_output"] = True
    across = stops.strings and (stops.included or lagging)
    if across:  # an event may bring several tokens, and it must be known which of them completes a stop string
        body.setdefault("logprobs", 0)
    search = (
        BoundarySearch(point.before, stops, kept=point.kept, min_tokens=fields.get("min_tokens") or 0)
        if across
        else None
    )
    adapter = Resumed(
        sent,
        point,
        chat=kind.chat,
        prompt_tokens=len(prompt),
        again=broken.ids[point.kept :] if broken.shown else [],
        characters=sent.characters_before + len(point.before) - len(point.pending or ""),
        top=fields.get("top_logprobs") or 0,
        search=search,
        held_back=HeldBackText(point.pending or "", stops) if lagging else None,
        transcript=transcript,
    )
    unsent = point.unsent_by(sent.steps)
    return Continuation(
        COMPLETIONS.path,
        orjson.dumps(body),
        adapter=adapter,
        transcript=transcript,
        rewind=None if broken.shown else (point.kept, point.steps, sent.text_chunk(unsent) if unsent else None),
        redrawn=broken.sampled and bool(point.owed),
    )


def _may_restart(transcript: Transcript, sent: SentAnswer, *, shown: bool) -> bool:
    """Returns whether the client has nothing of the answer yet, and nothing of its tokens."""
    return transcript.whole and not sent.visible and not (shown and transcript.count)


def _left(kind: Kind, fields: Mapping[str, Any], prompt: int, kept: int, max_model_len: int | None) -> int:
    """Returns how many more tokens the answer may have."""
    limits = []
    if (named := kind.answer_limit(fields)) is not None:
        limits.append(named - kept)
    if max_model_len is not None:
        limits.append(max_model_len - prompt - kept)
    if not limits:
        raise CannotContinue("unknown context length")
    return min(limits)


def _gap_in(kind: Kind, transcript: Transcript, sent: SentAnswer) -> str | None:
    """Returns what the transcript lacks, if the stream cannot go on because of that."""
    if transcript.prompt_ids is None or not transcript.count:
        return "no token ids"
    if kind.chat and not sent.visible:
        return "no text yet"  # an engine's parser may hold these tokens back, and only that engine knows its state
    return None

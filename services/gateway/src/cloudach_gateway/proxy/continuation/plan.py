"""How a stream that broke goes on with another engine: what to ask it, and its answer as the first stream's: pure.

    question(kind, fields, transcript) -> perhaps a body for /detokenize; its answer's text is `told`
    plan(kind, fields, transcript, told=…) -> Continuation -> take_over() once -> adapt() each payload

docs/failover.md says what is continued, restarted or given up, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ..engine.chunk import SHAPE_ERRORS, BadChunk
from ..stream.transcript import Transcript
from .cut import Cut, Stops, choose, sharpened, tokens_owed
from .field_table import continued, is_sampled, obstacle, stop_strings
from .kinds import COMPLETIONS, KINDS, Kind, choices
from .restart import Restarted
from .resume import Resumed
from .sent import Seen
from .stop_strings import Hold, Seam

__all__ = ["CannotContinue", "Continuation", "kind_of", "plan", "question"]

_REDRAWN = 2  # sampled tokens whose text has to come out as before: each further one makes that less likely


class CannotContinue(Exception):
    """The stream cannot go on exactly. `reason` is short: for log, metric and docs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Adapter(Protocol):
    @property
    def ended(self) -> bool:
        """Whether the answer is at its end, though the engine goes on."""

    def adapt(self, payload: bytes) -> bytes | None: ...


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
        """Call it once, when the first payload of the new stream has come: the transcript forgets what the new stream
        tells again. How many tokens that were counted will be counted again: take them off the tally."""
        if self._rewind is None or self._transcript is None:
            return 0
        tokens, events, sent = self._rewind
        again = self._transcript.count - tokens
        self._transcript.rewind(tokens=tokens, events=events, sent=sent)
        self._rewind = None
        return again

    @property
    def ended(self) -> bool:
        """Whether the answer is at its end though the engine goes on: a stop string across the cut. Close its stream;
        what it still brings is dropped by `adapt`."""
        return self._adapter is not None and self._adapter.ended

    def adapt(self, payload: bytes) -> bytes | None:
        """One payload of the new stream as the broken stream would have gone on; None: it has nothing new.

        Raises NotReproducible when it differs from what was sent, EngineReportedError, BadChunk.
        """
        if self._adapter is None:
            raise RuntimeError("nothing was left to generate")
        try:
            return self._adapter.adapt(payload)
        except SHAPE_ERRORS as error:
            raise BadChunk(f"not of a chunk's shape: {type(error).__name__}") from error


def kind_of(path: str) -> Kind:
    """How the answers of an engine's path go on. Raises CannotContinue."""
    kind = KINDS.get(path)
    if kind is None:
        raise CannotContinue(f"answers from {path} are not continued")
    return kind


def question(kind: Kind, fields: Mapping[str, Any], transcript: Transcript, *, ids_shown: bool = False) -> bytes | None:
    """The body of a POST /detokenize to an engine, whose answer's `prompt` is for `plan` to be told: the text of tokens
    that had not come out yet, or is not known to be complete. None where nothing is gained by it, as mostly.

    Without it such tokens are generated again. Sampled ones hardly come as before; greedy ones mostly do, but engines
    may round differently.
    """
    try:
        situation = _Situation.of(kind, fields, transcript, ids_shown=ids_shown)
    except CannotContinue:
        return None
    cut = situation.cut
    if cut is None or not situation.ids[cut.kept :] or not cut.unsent_by(situation.seen.steps):
        return None
    return orjson.dumps({"model": fields.get("model"), "tokens": situation.ids[cut.kept :]})


def plan(
    kind: Kind,
    fields: Mapping[str, Any],
    transcript: Transcript,
    *,
    ids_shown: bool = False,
    max_model_len: int | None = None,
    told: str | None = None,
) -> Continuation:
    """How the stream goes on. Raises CannotContinue.

    fields: the parsed body that the first engine got, asked for token ids and usage. ids_shown: whether the client
    sees the token ids: then the same have to come again. max_model_len: the engine's context in tokens, needed for a
    chat request that names no longest answer. told: what `question` asked for.
    """
    seen = Seen.of(transcript)
    if len(seen.ended | transcript.ended) >= choices(fields):
        return Continuation(kind.path, None)
    if _may_restart(transcript, seen, shown=ids_shown or seen.logprobs):
        return Continuation(
            kind.path,
            orjson.dumps(fields),
            adapter=Restarted(seen),
            transcript=transcript,
            rewind=(0, seen.leading, None),
            restarted=True,
        )
    situation = _Situation.of(kind, fields, transcript, ids_shown=ids_shown)
    cut = situation.cut
    if cut is None:
        raise CannotContinue("no clean cut")
    if told is not None:
        cut = sharpened(cut, seen.steps, transcript.count, situation.stops, told) or cut
    if situation.sampled and situation.shown and cut.kept < transcript.count:
        raise CannotContinue("sampled tokens to come again")
    if situation.sampled and tokens_owed(cut, seen.steps) > _REDRAWN:
        raise CannotContinue("sampled text to come again")
    return _resumed(kind, fields, transcript, situation, cut, max_model_len)


@dataclass(slots=True)
class _Situation:
    """A broken stream that could be gone on with. cut: before what has to come again; None: nowhere. shown: whether
    the client can tell whether the same tokens come again."""

    seen: Seen
    ids: list[int]
    stops: Stops
    cut: Cut | None
    sampled: bool
    shown: bool

    @classmethod
    def of(cls, kind: Kind, fields: Mapping[str, Any], transcript: Transcript, *, ids_shown: bool) -> _Situation:
        """Raises CannotContinue."""
        seen = Seen.of(transcript)
        reason = obstacle(kind, fields) or seen.obstacle or _without_ids(kind, transcript, seen)
        if reason is not None:
            raise CannotContinue(reason)
        stops = Stops(tuple(stop_strings(fields)), bool(fields.get("include_stop_str_in_output")))
        ids = [int(number) for number in bytes(transcript.ids).split(b",")[:-1]]
        cut = choose(seen.steps, len(ids), stops, whole=transcript.whole, doubtful=transcript.doubtful)
        return cls(seen, ids, stops, cut, is_sampled(fields), ids_shown or seen.logprobs)


def _resumed(
    kind: Kind,
    fields: Mapping[str, Any],
    transcript: Transcript,
    situation: _Situation,
    cut: Cut,
    max_model_len: int | None,
) -> Continuation:
    seen, stops = situation.seen, situation.stops
    prompt = transcript.prompt_ids or []
    left = _left(kind, fields, len(prompt), cut.kept, max_model_len)
    if left <= 0:
        return Continuation(kind.path, None, final=seen.last_chunk("length"))
    body = continued(
        kind, fields, prompt=prompt + situation.ids[: cut.kept], kept=cut.kept, left=left, logprobs=seen.logprobs
    )
    lagging = stops.held > 0 and cut.pending is not None
    if lagging:  # what the engine would hold back is held back here, behind what the first one had held back
        body["include_stop_str_in_output"] = True
    across = stops.strings and (stops.included or lagging)
    if across:  # of several tokens in one event it must be known which one completes a stop string
        body.setdefault("logprobs", 0)
    seam = Seam(cut.before, stops, kept=cut.kept, min_tokens=fields.get("min_tokens") or 0) if across else None
    adapter = Resumed(
        seen,
        cut,
        chat=kind.chat,
        prompt_tokens=len(prompt),
        again=situation.ids[cut.kept :] if situation.shown else [],
        characters=seen.characters_before + len(cut.before) - len(cut.pending or ""),
        top=fields.get("top_logprobs") or 0,
        seam=seam,
        hold=Hold(cut.pending or "", stops) if lagging else None,
        transcript=transcript,
    )
    unsent = cut.unsent_by(seen.steps)
    return Continuation(
        COMPLETIONS.path,
        orjson.dumps(body),
        adapter=adapter,
        transcript=transcript,
        rewind=None if situation.shown else (cut.kept, cut.steps, seen.text_chunk(unsent) if unsent else None),
        redrawn=situation.sampled and bool(cut.owed),
    )


def _may_restart(transcript: Transcript, seen: Seen, *, shown: bool) -> bool:
    """Whether the client has nothing of the answer, and nothing of its tokens."""
    return transcript.whole and not seen.visible and not (shown and transcript.count)


def _left(kind: Kind, fields: Mapping[str, Any], prompt: int, kept: int, max_model_len: int | None) -> int:
    limits = []
    if (named := kind.answer_limit(fields)) is not None:
        limits.append(named - kept)
    if max_model_len is not None:
        limits.append(max_model_len - prompt - kept)
    if not limits:
        raise CannotContinue("unknown context length")
    return min(limits)


def _without_ids(kind: Kind, transcript: Transcript, seen: Seen) -> str | None:
    if transcript.prompt_ids is None or not transcript.count:
        return "no token ids"
    if kind.chat and not seen.visible:
        return "no text yet"  # a parser may be at work: only its own engine knows what these tokens are
    return None

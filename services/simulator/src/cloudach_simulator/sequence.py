"""Generates one answer: its tokens, its text, and its end. Text is held back while a character or stop string is
incomplete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .generate import ADD, INDEX_MASK, MASK, MULTIPLY, NEXT, SHIFT, advance, mix, pick
from .vocabulary import EOS, PIECES, SIMPLE, SPECIAL


@dataclass(slots=True, frozen=True)
class Sampling:
    """The parts of a request that decide the answer beside its prompt."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    skip_special: bool = True
    seed: int | None = None
    """It is set only under a temperature above 0, where it has an effect."""
    penalised: bool = False
    """Frequency or presence penalties, which see only this request's own tokens."""
    script: tuple[int, ...] | None = None
    """The tokens that a grammar or a tool call forces, with an EOS at their end."""
    top_logprobs: int | None = None


@dataclass(slots=True)
class Output:
    """The result of one step, or of several steps merged."""

    text: str
    ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    states: list[int] = field(default_factory=list)
    """The hash state before each token, for log probabilities. It is empty if nobody asked for them."""

    def merge(self, other: Output) -> None:
        """Appends a later step."""
        self.text += other.text
        self.ids += other.ids
        self.states += other.states
        self.finish_reason = other.finish_reason
        self.stop_reason = other.stop_reason


class Sequence:
    """The generation of one choice."""

    __slots__ = (
        "_barred",
        "_hold",
        "_released",
        "_salt",
        "_script",
        "_stepped_salt",
        "_text",
        "count",
        "finished",
        "index",
        "last",
        "pending",
        "plain",
        "sampling",
        "state",
    )

    def __init__(self, sampling: Sampling, state: int, last: int, tail: bytes = b"", index: int = 0) -> None:
        self.sampling = sampling
        self.state = state
        self.last = last
        self.index = index
        self.count = 0
        self.finished = False
        self.pending = tail
        """The bytes of an incomplete character, which are held back."""
        self._text = ""
        self._released = 0
        self._hold = 0 if sampling.include_stop else max((len(s) - 1 for s in sampling.stop), default=0)
        self._barred = sampling.stop_token_ids | {EOS} if sampling.min_tokens else frozenset()
        self._script: Iterator[int] | None = iter(sampling.script) if sampling.script is not None else None
        self._stepped_salt = (
            mix(sampling.seed or 0, index + 1) if sampling.seed is not None or sampling.penalised else 0
        )
        self._salt = mix(index) if index else 0
        self.plain = not (
            sampling.stop
            or sampling.stop_token_ids
            or sampling.min_tokens
            or not sampling.skip_special
            or self._script
            or self._stepped_salt
            or self._salt
            or sampling.top_logprobs is not None
        )
        """Tells that only the tokens decide, so that the streams' fast path may be used."""

    def _next(self) -> int:
        if self._script is not None:
            return next(self._script, EOS)
        salt = mix(self._stepped_salt, self.count) if self._stepped_salt else self._salt
        barred = self._barred if self.count < self.sampling.min_tokens else frozenset[int]()
        return pick(self.state, self.last, salt, barred)

    def _characters(self, token: int) -> str:
        """Returns the text that becomes complete with `token`. An incomplete character is held back."""
        piece = PIECES[token]
        if token in SPECIAL:
            if self.sampling.skip_special:
                return ""
        elif not self.pending and piece.isascii():
            return piece.decode()
        self.pending += piece
        text = self.pending.decode("utf-8", "replace")
        if text.endswith("\ufffd"):
            return ""
        self.pending = b""
        return text

    def _stopped_by(self, text: str, added: int) -> str | None:
        """Returns the stop string that is completed first, and ends the text before it (or after it)."""
        best: tuple[int, str] | None = None
        for stop in self.sampling.stop:
            at = text.find(stop, max(0, len(text) - added - len(stop) + 1))
            if at >= 0 and (best is None or at + len(stop) < best[0]):
                best = (at + len(stop), stop)
        if best is None:
            return None
        end, stop = best
        self._text = text[: end if self.sampling.include_stop else end - len(stop)]
        return stop

    def step(self, tokens: int = 1) -> Output:
        """Generates up to `tokens` tokens, or fewer if the answer ends."""
        out = Output("", [])
        sampling = self.sampling
        for _ in range(tokens):
            token = self._next()
            if sampling.top_logprobs is not None:
                out.states.append(self.state)
            self.state = advance(self.state, token)
            self.last = token
            self.count += 1
            out.ids.append(token)
            stopped = False
            if token == EOS and not sampling.ignore_eos:
                out.finish_reason, stopped = "stop", True
            elif token in sampling.stop_token_ids:
                out.finish_reason, out.stop_reason, stopped = "stop", token, True
            elif self.count >= sampling.max_tokens:
                out.finish_reason = "length"
            added = "" if stopped and not sampling.include_stop else self._characters(token)
            if not sampling.stop:
                out.text += added
            else:
                self._text += added
                if added and self.count > sampling.min_tokens:
                    stop = self._stopped_by(self._text, len(added))
                    if stop is not None:
                        out.finish_reason, out.stop_reason = "stop", stop
                ready = len(self._text) - (0 if out.finish_reason else self._hold)
                if ready > self._released:
                    out.text += self._text[self._released : ready]
                    self._released = ready
            if out.finish_reason:
                self.finished = True
                break
        return out

    def abort(self) -> Output:
        """Ends the answer early. Text that was held back for a stop string comes out."""
        self.finished = True
        return Output(self._text[self._released :], [], "abort")

    def one(self) -> int | None:
        """Returns a plain sequence's next token, if it is simple and not the last; otherwise None."""
        if self.pending or self.count >= self.sampling.max_tokens - 1:
            return None
        token = NEXT[self.last][(self.state >> SHIFT) & INDEX_MASK]
        if not SIMPLE[token]:
            return None
        self.state = ((self.state ^ token) * MULTIPLY + ADD) & MASK
        self.last = token
        self.count += 1
        return token

    def many(self, tokens: int) -> list[int]:
        """Returns up to `tokens` next tokens of a plain sequence, up to the first that is not simple."""
        if self.pending:
            return []
        state, last = self.state, self.last
        room = min(tokens, self.sampling.max_tokens - self.count - 1)
        ids: list[int] = []
        while len(ids) < room:
            token = NEXT[last][(state >> SHIFT) & INDEX_MASK]
            if not SIMPLE[token]:
                break
            state = ((state ^ token) * MULTIPLY + ADD) & MASK
            last = token
            ids.append(token)
        self.state, self.last = state, last
        self.count += len(ids)
        return ids

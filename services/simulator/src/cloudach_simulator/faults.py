"""Faults on demand: their grammar, the plan for one request, and the faults that wait for their request.

    faults  = fault *("," fault)
    fault   = name ["@" tokens] *(":" argument)

`@tokens` is the number of tokens of the answer after which it happens (0: after the headers, before any event).

    die@K             the process kills itself (SIGKILL) once K tokens are out
    abort@K           the connection is reset
    close@K           the connection is closed without the end of the body, as when a replica behind a proxy dies
    end@K             the stream ends cleanly, without [DONE]
    error@K[:nodone]  vLLM's error frame, then [DONE] (or not)
    engine@K          the engine process dies: the error frame and [DONE] on all running streams, 500 from then on
    shutdown@K        as vLLM ends what runs when it is told to end: the finish reason `abort`, then [DONE]
    stall@K[:MS]      nothing more comes, for MS milliseconds or for ever
    prefill:MS        the first token takes MS milliseconds longer
    http:STATUS[:json] the status before the first byte, as text/plain (a proxy's) or in vLLM's JSON shape
    refuse            the connection is closed before the first byte
    hang              no answer, not even headers
    split:N           the body is written in pieces of N bytes; `split:random[:SEED]` in pieces of 1 to 40
    huge@K:BYTES      the event of token K carries an unknown field of that many bytes
    crlf              lines end in CRLF
    comment[:TEXT]    a comment line before each event
    multiline         each event's JSON is spread over several data: lines
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

CUTS = frozenset({"die", "abort", "close", "end", "error", "engine", "shutdown", "stall"})
_BEFORE = frozenset({"http", "refuse", "hang"})
_PLAIN = frozenset({"crlf", "multiline", "refuse", "hang"})


class BadFault(ValueError):
    """A fault that the grammar does not know."""


@dataclass(slots=True, frozen=True)
class Plan:
    """The faults of one request."""

    cut: str | None = None
    at: int = 0
    argument: str = ""
    """An argument of the fault that ends the stream: `nodone`, or a stall's milliseconds."""
    before: str | None = None
    status: int = 500
    json_body: bool = False
    prefill_ms: float = 0.0
    split: int = 0
    """The size of pieces. -1: random sizes."""
    split_seed: int = 0
    huge_at: int = 0
    huge_bytes: int = 0
    crlf: bool = False
    comment: str | None = None
    multiline: bool = False

    @property
    def rewrites(self) -> bool:
        """Tells that events have to be taken apart before they are written."""
        return bool(self.crlf or self.comment is not None or self.multiline or self.huge_bytes)


NOTHING = Plan()


def _number(text: str, what: str) -> int:
    if not text.isdigit():
        raise BadFault(f"{what} is not a number: {text!r}")
    return int(text)


def _one(plan: Plan, item: str) -> Plan:
    head, *arguments = item.strip().split(":")
    name, _, at = head.partition("@")
    tokens = _number(at, "the token count") if at else 0
    first = arguments[0] if arguments else ""
    if name in CUTS:
        if first and not ((name == "error" and first == "nodone") or (name == "stall" and first.isdigit())):
            raise BadFault(f"{name} does not take {first!r}")
        return replace(plan, cut=name, at=tokens, argument=first)
    if name == "http":
        if len(arguments) > 1 and arguments[1] != "json":
            raise BadFault(f"http takes a status and 'json', not {arguments[1]!r}")
        return replace(plan, before=name, status=_number(first, "the status"), json_body=len(arguments) > 1)
    if name in _BEFORE:
        return replace(plan, before=name)
    if name == "prefill":
        return replace(plan, prefill_ms=float(_number(first, "the delay")))
    if name == "split":
        if first == "random":
            return replace(plan, split=-1, split_seed=_number(arguments[1], "the seed") if len(arguments) > 1 else 0)
        return replace(plan, split=max(1, _number(first, "the piece size")))
    if name == "huge":
        return replace(plan, huge_at=max(1, tokens), huge_bytes=_number(first, "the size"))
    if name == "comment":
        return replace(plan, comment=first or "sim")
    if name in _PLAIN:
        return replace(plan, crlf=plan.crlf or name == "crlf", multiline=plan.multiline or name == "multiline")
    raise BadFault(f"no such fault: {name!r}")


def parse(text: str) -> Plan:
    """Returns the plan of a fault specification."""
    plan = NOTHING
    for item in text.split(","):
        if item.strip():
            plan = _one(plan, item)
    return plan


@dataclass(slots=True)
class Armed:
    """A fault that waits for requests."""

    fault: str
    plan: Plan
    times: int | None = None
    """How often it still happens. None: always."""
    probability: float = 1.0
    user: str | None = None
    """It happens only to requests with this `user`. None: to all."""


class Arsenal:
    """The faults that are set for the whole server. The first one that fits a request happens."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._armed: list[Armed] = []

    def arm(self, fault: str, times: int | None = None, probability: float = 1.0, user: str | None = None) -> None:
        """Adds a fault. Raises BadFault."""
        self._armed.append(Armed(fault, parse(fault), times, probability, user))

    def clear(self) -> None:
        """Removes all faults."""
        self._armed.clear()

    def strike(self, user: object = None) -> Plan | None:
        """Returns the fault for the request that comes in now."""
        for armed in self._armed:
            if armed.user is not None and armed.user != user:
                continue
            if armed.probability < 1.0 and self._random.random() >= armed.probability:
                continue
            if armed.times is not None:
                armed.times -= 1
                if armed.times <= 0:
                    self._armed.remove(armed)
            return armed.plan
        return None

    def listing(self) -> list[dict[str, object]]:
        """Returns the faults that wait."""
        return [{"fault": a.fault, "times": a.times, "probability": a.probability, "user": a.user} for a in self._armed]


def rewrite(plan: Plan, events: Iterable[bytes], tokens_before: int) -> list[bytes]:
    """Returns events in odd forms of server-sent events. tokens_before: how many tokens were sent before."""
    out = []
    told = tokens_before
    for event in events:
        text = event
        if b'"finish_reason"' in event and b'"role"' not in event:
            told += 1
            if plan.huge_bytes and told == plan.huge_at:
                text = event[:-3] + b',"padding":"' + b"x" * plan.huge_bytes + b'"}\n\n'
        if plan.multiline and text.startswith(b"data: {"):
            # A line break may stand wherever JSON allows white space: after the commas between the outer fields.
            text = text.replace(b',"object"', b',\ndata: "object"', 1).replace(b',"choices"', b',\ndata:"choices"', 1)
        if plan.comment is not None:
            text = b": " + plan.comment.encode() + b"\n" + text
        out.append(text.replace(b"\n", b"\r\n") if plan.crlf else text)
    return out


def pieces(plan: Plan, data: bytes, generator: random.Random) -> list[bytes]:
    """Returns `data` in pieces of the sizes that `split` asks for."""
    out = []
    at = 0
    while at < len(data):
        size = plan.split if plan.split > 0 else generator.randint(1, 40)
        out.append(data[at : at + size])
        at += size
    return out

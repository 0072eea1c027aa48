"""These functions read what an engine logged when it failed. Pure."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"^(\(\S[^)]*pid=\d+[^)]*\)\s?)?((ERROR|WARNING|INFO) \S+ \S+ \[[^\]]*\]\s?)?")
_EXCEPTION = re.compile(r"^\s*([\w.]+\.)?[A-Z]\w*(Error|Exception|Failure)\b.*")
_SECOND_HAND = re.compile(r"See root cause above|Ray(Task|Actor)Error|ActorDiedError|WorkerProc failed", re.I)


def without_prefix(line: str) -> str:
    """Returns a line of a log without the process, the level and the place that Ray and vLLM write before it."""
    return _PREFIX.sub("", line).strip()


def last_error(text: str) -> str:
    """Returns the last exception of the engine that does not merely report another one; else its last line."""
    lines = [without_prefix(line) for line in text.splitlines()]
    errors = [line for line in lines if _EXCEPTION.match(line) and not _SECOND_HAND.search(line)]
    return (errors or [line for line in lines if line] or [""])[-1][:500]

"""Counts what was generated, sent and aborted, per request and in total. Its memory is bounded."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol


class Counted(Protocol):
    """A running answer. It counts for itself, so that a chunk costs the ledger nothing."""

    @property
    def generated(self) -> int: ...

    @property
    def sent(self) -> int: ...


@dataclass(slots=True)
class Entry:
    """One request."""

    id: str
    path: str
    model: str
    stream: bool
    prompt_tokens: int
    running: Counted | None
    started: float = field(default_factory=time.time)
    ended: float | None = None
    state: str = "running"
    fault: str | None = None
    cache_salt: str | None = None
    trace: dict[str, str] = field(default_factory=dict)
    """The headers of tracing that the request had: `traceparent`, `tracestate`, `baggage`."""
    _generated: int = 0
    _sent: int = 0

    @property
    def generated(self) -> int:
        """How many tokens have been generated."""
        return self.running.generated if self.running is not None else self._generated

    @property
    def sent(self) -> int:
        """How many tokens the connection has been given."""
        return self.running.sent if self.running is not None else self._sent

    def close(self, state: str) -> None:
        """Freezes the counts."""
        if self.running is not None:
            self._generated, self._sent = self.running.generated, self.running.sent
            self.running = None
            self.state = state
            self.ended = time.time()

    def public(self) -> dict[str, Any]:
        """Returns the entry as JSON."""
        return {
            "id": self.id,
            "path": self.path,
            "model": self.model,
            "stream": self.stream,
            "state": self.state,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated,
            "sent_tokens": self.sent,
            "fault": self.fault,
            "cache_salt": self.cache_salt,
            "trace": self.trace,
            "started": self.started,
            "ended": self.ended,
        }


class Ledger:
    """All requests that run, and the last ones that ended."""

    def __init__(self, keep: int = 20_000) -> None:
        self._keep = keep
        self.reset()

    def reset(self) -> None:
        """Forgets all but the running requests, which count from here on as if they had just begun."""
        self._serial = getattr(self, "_serial", 0)
        self._running: dict[int, Entry] = getattr(self, "_running", {})
        self._ended: OrderedDict[int, Entry] = OrderedDict()
        self._totals = dict.fromkeys(
            (
                "requests",
                "generated_tokens",
                "sent_tokens",
                "prompt_tokens",
                "finished",
                "aborted",
                "failed",
                "refused",
            ),
            0,
        )

    def open(self, entry: Entry) -> int:
        """Notes a request that begins. Returns the number with which to close it."""
        self._serial += 1
        self._running[self._serial] = entry
        self._totals["requests"] += 1
        self._totals["prompt_tokens"] += entry.prompt_tokens
        return self._serial

    def close(self, serial: int, state: str) -> None:
        """Notes that a request has `finished`, was `aborted` by its client, or `failed` by a fault."""
        entry = self._running.pop(serial, None)
        if entry is None:
            return
        entry.close(state)
        self._totals[state] += 1
        self._totals["generated_tokens"] += entry.generated
        self._totals["sent_tokens"] += entry.sent
        self._ended[serial] = entry
        if len(self._ended) > self._keep:
            self._ended.popitem(last=False)

    def refuse(self) -> None:
        """Notes a request that was answered with an error before it began."""
        self._totals["refused"] += 1

    @property
    def running(self) -> int:
        """How many requests run now."""
        return len(self._running)

    def stats(self) -> dict[str, int]:
        """Returns the totals, with running requests counted up to now."""
        totals = dict(self._totals)
        for entry in self._running.values():
            totals["generated_tokens"] += entry.generated
            totals["sent_tokens"] += entry.sent
        return {"running": self.running, **{f"{name}_total": value for name, value in totals.items()}}

    def requests(self, limit: int = 100, request_id: str | None = None) -> list[dict[str, Any]]:
        """Returns the last requests, newest first. id: only requests with this id, of which a retry makes several."""
        entries = [*self._ended.items(), *self._running.items()]
        entries.sort(key=lambda item: item[0], reverse=True)
        found = [entry.public() for _, entry in entries if request_id is None or entry.id == request_id]
        return found[:limit]

"""Requests that go wrong. These are the runs of run.py with a fault plan."""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import errors
from .faults import Plan, pieces, rewrite
from .run import Run, Sink, StreamRun, WholeRun


class SplitSink:
    """Writes the body in odd pieces, one for each turn of the loop, so that they travel apart."""

    def __init__(self, inner: Sink, plan: Plan, call_soon: Callable[..., Any]) -> None:
        self._inner = inner
        self._plan = plan
        self._call_soon = call_soon
        self._random = random.Random(plan.split_seed)
        self._queue: deque[bytes | Callable[[], None]] = deque()
        self._busy = False
        self.start = inner.start
        self.reply = inner.reply
        self.request_id = inner.request_id

    @property
    def writable(self) -> bool:
        """Tells that no pieces wait. While some wait, the peer counts as slow."""
        return self._inner.writable and len(self._queue) < 4096

    def send(self, parts: Sequence[bytes]) -> None:
        """Queues the pieces of these parts."""
        self._queue.extend(pieces(self._plan, b"".join(parts), self._random))
        self._wake()

    def send_one(self, part: bytes) -> None:
        """Queues the pieces of this part."""
        self.send((part,))

    def finish(self) -> None:
        """Ends the body after the last piece."""
        self._queue.append(self._inner.finish)
        self._wake()

    def cut(self, *, reset: bool) -> None:
        """Drops the connection after the last piece."""
        self._queue.append(lambda: self._inner.cut(reset=reset))
        self._wake()

    def flushed(self) -> bool:
        """Tells that every piece went out."""
        return not self._queue and self._inner.flushed()

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._call_soon(self._write)

    def _write(self) -> None:
        item = self._queue.popleft()
        if callable(item):
            item()
        else:
            self._inner.send([item])
        if self._queue:
            self._call_soon(self._write)
        else:
            self._busy = False


def kill_when_flushed(run: Run, patience: float = 1.0) -> None:
    """Kills this process (SIGKILL) as soon as it has handed over what was written."""
    if run.sink.flushed() or patience <= 0:
        # The kernel holds the bytes and delivers them after the process has died.
        os.kill(os.getpid(), signal.SIGKILL)
    run.loop.call_later(0.002, kill_when_flushed, run, patience - 0.002)


def strike(run: Run, plan: Plan, engine_died: Callable[[], None], *, may_exit: bool) -> None:
    """Has the plan's fault happen now."""
    kind = plan.cut
    if kind == "stall":
        run.stall(int(plan.argument) / 1000 if plan.argument else None)
    elif kind == "engine":
        engine_died()
    elif kind == "shutdown":
        run.shut_down()
    elif kind == "error" and plan.argument == "nodone" and isinstance(run, StreamRun):
        run.died = True
        run.end("failed")
        run.sink.send([errors.stream_frame()])
        run.sink.finish()
    elif kind == "error":
        run.break_off()
    else:
        run.died = kind == "die"
        run.end("failed")
        if kind == "end" and isinstance(run, StreamRun):
            run.sink.finish()
        elif kind == "die" and may_exit:
            kill_when_flushed(run)
        else:
            run.sink.cut(reset=kind in ("abort", "die"))


class FaultyStream(StreamRun):
    """A stream that goes wrong."""

    plan: Plan
    engine_died: Callable[[], None]
    may_exit = True
    _ending: Sequence[bytes] = ()

    def begin(self) -> None:
        """A fault at token 0 comes after the headers."""
        self._single = False
        if self.plan.cut and self.plan.at == 0:
            self.sink.start(b"text/event-stream; charset=utf-8")
            self._cut()
        else:
            super().begin()

    def emit(self, chunks: int) -> None:
        """Generates and sends up to the fault."""
        answer, plan = self.answer, self.plan
        before = answer.depth
        events = answer.events(chunks, plan.at - before if plan.cut else None)
        cut = plan.cut is not None and answer.depth >= plan.at
        if cut and answer.complete:
            # The fault takes away what comes after the last token.
            last = -2 if answer.ask.include_usage else -1
            self._ending = events[last:]
            del events[last:]
        self.sink.send(rewrite(plan, events, before) if plan.rewrites else events)
        if cut:
            self._cut()
        elif answer.complete:
            self.end("finished")
            self.sink.finish()

    def wake(self) -> None:
        """Ends a stall. If it came after the last token, the rest of the stream follows."""
        if self.answer.complete:
            self.sink.send(self._ending)
            self.end("finished")
            self.sink.finish()
        else:
            super().wake()

    def _cut(self) -> None:
        plan, self.plan = self.plan, replace(self.plan, cut=None)
        strike(self, plan, self.engine_died, may_exit=self.may_exit)


class FaultyWhole(WholeRun):
    """A whole answer that goes wrong."""

    plan: Plan
    engine_died: Callable[[], None]
    may_exit = True

    def begin(self) -> None:
        """A fault at token 0 comes before the prefill."""
        if self.plan.cut and self.plan.at == 0:
            self._cut()
        else:
            super().begin()

    def emit(self, chunks: int) -> None:
        """Generates up to the fault."""
        plan = self.plan
        if plan.cut:
            chunks = min(chunks, plan.at - self.answer.depth)
        self.answer.advance(chunks)
        if plan.cut and self.answer.depth >= plan.at:
            self._cut()
        elif self.answer.finished:
            self.tell()

    def wake(self) -> None:
        """Ends a stall."""
        if self.answer.finished:
            self.tell()
        else:
            super().wake()

    def _cut(self) -> None:
        plan, self.plan = self.plan, replace(self.plan, cut=None)
        strike(self, plan, self.engine_died, may_exit=self.may_exit)

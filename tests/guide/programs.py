"""Runs an example as a program of its own and notes when each piece of its output comes."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudach_service.processes import die_with_parent


@dataclass(frozen=True)
class Arrivals:
    """Pieces of a text with the moments when they came."""

    pieces: list[bytes]
    times: list[float]

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def text(self) -> str:
        return self.data.decode()

    def assert_one_by_one(self, tokens: int, rate: float) -> None:
        """It came about as `tokens` were generated, `rate` a second: in many pieces, over most of that time."""
        assert len(self.pieces) >= max(2, tokens // 3), f"{tokens} tokens came in {len(self.pieces)} pieces"
        took = self.times[-1] - self.times[0]
        assert took >= 0.5 * (tokens - 2) / rate, f"{tokens} tokens came within {took:.2f} s"


@dataclass(frozen=True)
class Run:
    status: int
    output: Arrivals
    errors: str


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    patience_s: float = 50.0,
) -> Run:
    """Raises TimeoutError, having killed it."""
    with tempfile.TemporaryFile() as errors, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(env),
            cwd=cwd,
            preexec_fn=die_with_parent(),
        )
        assert process.stdout is not None
        arrivals = Arrivals([], [])
        with process:
            selector.register(process.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + patience_s
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    process.kill()
                    raise TimeoutError(f"{command} goes on after {patience_s} s; it printed {arrivals.data!r}")
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                arrivals.pieces.append(piece)
                arrivals.times.append(time.monotonic())
            status = process.wait(timeout=10)
        errors.seek(0)
        return Run(status, arrivals, errors.read().decode(errors="replace"))

"""The processes of a stack write their output into logs. They are watched, and ended in reverse order."""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from cloudach_service import processes


class ChildFailed(Exception):
    """A process ended that should have gone on; the message holds the end of its log."""


class Child:
    """One process. It has a session of its own, so that Ctrl-C does not reach it before its turn."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: dict[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        patience_s: float = 30.0,
    ) -> None:
        self.name = name
        self.log = log
        self._patience_s = patience_s
        self._on_line = on_line
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=processes.die_with_parent(),
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._log.write(raw)
            self._log.flush()
            if self._on_line is not None:
                self._on_line(raw.decode("utf-8", "replace").rstrip("\n"))

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends it by SIGTERM, and by SIGKILL when its patience is over."""
        processes.end(self.process, patience_s=self._patience_s)
        self._reader.join(timeout=5)
        self._log.close()

    def failure(self) -> ChildFailed:
        self._reader.join(timeout=5)
        lines = self.log.read_text("utf-8", "replace").splitlines()[-15:]
        text = "\n".join(f"    {line}" for line in lines)
        return ChildFailed(f"{self.name} ended with exit code {self.process.returncode}.\n{text}\n  Log: {self.log}")


class Children:
    """`with Children() as children:` ends them all, the last one started first."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._all):
            child.stop()

    def add(self, child: Child) -> Child:
        self._all.append(child)
        return child

    def check(self) -> None:
        """Raises ChildFailed when one has ended."""
        for child in self._all:
            if not child.running:
                raise child.failure()

    def wait_until(self, ready: Callable[[], bool], *, pause_s: float = 0.05, patience_s: float = math.inf) -> None:
        """Waits until `ready` says so. Raises ChildFailed when a child ends before, TimeoutError after `patience_s`."""
        give_up_at = time.monotonic() + patience_s
        while not ready():
            self.check()
            if time.monotonic() > give_up_at:
                raise TimeoutError
            time.sleep(pause_s)

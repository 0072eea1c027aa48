"""Servers as child processes: started, waited for, and ended by their own process id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cloudach_service.processes import die_with_parent

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent  # the project is tested with the interpreter that runs the tests

_ANNOUNCEMENT = re.compile(r"listening on (http://\S+)")


class ServerFailed(Exception):
    """A server did not come up; the message holds the end of its output."""


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with `changes`; None takes a variable out."""
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


class Server:
    """A server on a port of its own choice, which prints `listening on http://…` once it accepts connections.

    `ready` finds the address in the output of one that says it in other words. Use it in `with`, or call `stop()`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
        ready: re.Pattern[str] = _ANNOUNCEMENT,
        patience_s: float = 60.0,
        own_group: bool = False,
    ) -> None:
        self.name = Path(command[0]).name
        self._log = tempfile.TemporaryFile(prefix=f"{self.name}-")  # noqa: SIM115 - closed by stop()
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment(env or {}),
            cwd=cwd,
            preexec_fn=die_with_parent(),
            process_group=0 if own_group else None,
        )
        try:
            self.url = self._await_announcement(ready, patience_s)
        except BaseException:
            self.stop()
            raise

    @property
    def output(self) -> str:
        """Everything that it has printed until now."""
        if self._log.closed:
            return self._last_words
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, patience_s: float = 10.0) -> int:
        """SIGTERM, after `patience_s` SIGKILL; returns the exit status. A second call does nothing."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait()
        if not self._log.closed:
            self._last_words = self.output
            self._log.close()
        return status

    def kill(self) -> None:
        """SIGKILL, as when the machine takes it away."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_announcement(self, ready: re.Pattern[str], patience_s: float) -> str:
        deadline = time.monotonic() + patience_s
        while True:
            found = ready.search(self.output)
            if found is not None:
                return found[1].rstrip("/")
            if not self.alive:
                raise ServerFailed(f"{self.name} ended with {self.process.returncode}:\n{self.output[-4000:]}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not up after {patience_s} s:\n{self.output[-4000:]}")
            time.sleep(0.02)


def memory(server: Server) -> int:
    """Resident bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))

"""Starts simulators as processes of their own, for tests and benchmarks; they end with the starter, come what may."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from types import TracebackType

_PREFIX = "listening on "


class SimProcess:
    """`cloudach-sim` on a free port; a context manager.

    `SimProcess("--rate", "100")` takes the command line's options; `url` is known once it listens.
    """

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self._command = [
            sys.executable,
            "-m",
            "cloudach_simulator",
            "--port",
            "0",
            "--parent-pid",
            str(os.getpid()),
        ]
        self._command += options
        self._env = env
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 20.0) -> SimProcess:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=self._env)
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(deadline - time.monotonic()):
                self.stop()
                raise TimeoutError(f"the simulator did not listen within {timeout_s} s")
        line = self._process.stdout.readline().strip()
        if not line.startswith(_PREFIX):
            self.stop()
            raise RuntimeError(f"the simulator did not start: {line!r}")
        self.url = line.removeprefix(_PREFIX)
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self.stop()

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for its end; gives the exit status."""
        assert self._process is not None
        status = self._process.wait(timeout_s)
        self.stop()
        return status

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            self._process.wait(10)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def __enter__(self) -> SimProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

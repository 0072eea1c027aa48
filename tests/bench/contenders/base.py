"""What the bench wants of a contender."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.bench.client import Target
from tests.bench.cpu import children
from tests.support.processes import Server, ServerFailed

from .environment import Environment

PROXY = "proxy"
"""The part of a contender whose CPU counts as its cost."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The simulator that every contender stands before."""

    url: str
    """Without /v1."""
    model: str
    pid: int


class Contender(ABC):
    """Something between client and engine. `start` is called on the contender's core; what it starts inherits it."""

    name: ClassVar[str]
    title: ClassVar[str]
    """How tables call it."""
    usual: ClassVar[bool] = True
    """False for one that is measured only where it is asked for."""
    environment: ClassVar[Environment | None] = None
    """Where its program is, unless it came with the workspace."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        """For its files; it goes away with the bench."""

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be measured here; empty if it can."""
        return cls.environment.missing() if cls.environment else ""

    @abstractmethod
    def start(self) -> Target:
        """Returns once requests are served; may be called again after `stop`. Raises ServerFailed."""

    def parts(self) -> Mapping[str, Sequence[int]]:
        """Process ids by part: `PROXY` is the contender itself, children included; others are told apart."""
        return {}

    def stop(self) -> None:  # noqa: B027 - one without processes has nothing to end
        """Ends what `start` began, also after it failed half way."""

    def version(self) -> str:
        return ""

    def complaints(self) -> str:
        """The end of what it has written about trouble, for the message when a run fails."""
        return ""


def whole_tree(server: Server) -> dict[str, list[int]]:
    """`parts` of a contender that is one program."""
    return {PROXY: [server.process.pid, *children(server.process.pid)]}


class PortServer(Server):
    """A server that is told its port and does not say when it listens."""

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        *,
        env: Mapping[str, str | None] | None = None,
        patience_s: float = 30.0,
    ) -> None:
        self._port = port
        super().__init__(command, env=env, patience_s=patience_s)

    def _await_announcement(self, ready: re.Pattern[str], patience_s: float) -> str:
        deadline = time.monotonic() + patience_s
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return f"http://127.0.0.1:{self._port}"
            time.sleep(0.02)
        raise ServerFailed(f"{self.name} does not listen on its port:\n{self.output[-4000:]}")

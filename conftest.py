"""What a run of the tests leaves out is said once more at the end of `make test`; in CI it is a failure.

`LEFT_OUT` names the file that `make test` gathers it in. `CI=true` is what CI services set. And what lets a test pass
on a slow machine as on a fast one: a virtual clock, and no deadlines for hypothesis' examples. The authorities that the
machine trusts are read once.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from httpx._transports import default as httpx_transport
from hypothesis import HealthCheck, settings

# A shell has what it runs in the background ignore Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A receiver of traces lives in the tests' process. By itself gRPC starts threads in each child between its fork and its
# exec, which kills one child in forty.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How long an example takes is the machine's to say.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_new_ssl_context = httpx_transport.create_ssl_context
_trusting_this_machine = functools.cache(_new_ssl_context)


def _ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """By itself httpx reads them for every client, and so for each `httpx.get`: 17 ms of CPU, thousands of times."""
    make = _trusting_this_machine if verify is True and cert is None else _new_ssl_context
    return make(verify=verify, cert=cert, trust_env=trust_env)


httpx_transport.create_ssl_context = _ssl_context


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The loop's clock jumps to the next timer when nothing else is left to do: waits are exact, and take no time.

    For tests without sockets, threads and processes, whose time is the real one; on asyncio's own loop. Called with
    seconds: as if a callback had held the loop up for so long.
    """
    loop: Any = asyncio.get_running_loop()
    now = loop.time()
    select = loop._selector.select

    def jump(timeout: float | None = None) -> Any:
        nonlocal now
        if timeout is None:
            return select(None)
        now += timeout
        return select(0)

    def hold_up(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop._selector, "select", jump)
    return hold_up


def _left_out(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped, by reason. Workers of pytest-xdist know none, the run all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return Counter()
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reasons = _left_out(session.config)
    if not reasons:
        return
    if os.environ.get("CI", "").lower() in ("1", "true") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if file := os.environ.get("LEFT_OUT"):
        with (session.config.rootpath / file).open("a") as lines:
            lines.writelines(f"{count} tests: {reason}\n" for reason, count in reasons.items())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("skipped") and os.environ.get("CI", "").lower() in ("1", "true"):
        terminalreporter.line("In CI (CI=true) nothing may be left out: this run has failed", red=True, bold=True)

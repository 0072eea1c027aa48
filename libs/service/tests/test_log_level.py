"""Signals change the log level of a process, whenever they come."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from cloudach_service.log_level import SIGNALS, LevelSignals

RAISED, LOWERED = "the log level has changed", "the log level is as the settings say"
OWN = "a_service"

RUNNERS: list[Callable[[Coroutine[Any, Any, None]], None]] = [asyncio.run, uvloop.run]

pytestmark = pytest.mark.parametrize("runs", RUNNERS)


@pytest.fixture
def level(caplog: pytest.LogCaptureFixture) -> Iterator[LevelSignals]:
    caplog.set_level(logging.INFO, logger="cloudach.log")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    found = LevelSignals(OWN)
    found.catch()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)
    logging.getLogger(OWN).setLevel(logging.NOTSET)


async def _next_turns() -> None:
    """Lets the loop read what a signal left in its pipe."""
    for _ in range(3):
        reader, writer = os.pipe()
        os.write(writer, b"x")
        came = asyncio.Event()
        asyncio.get_running_loop().add_reader(reader, came.set)
        await came.wait()
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        os.close(writer)


def test_a_signal_between_the_loops_start_and_its_heeding_counts_once(
    runs: Callable[[Coroutine[Any, Any, None]], None], level: LevelSignals, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        level.heed(asyncio.get_running_loop())
        await _next_turns()
        assert logging.getLogger(OWN).level == logging.DEBUG

    runs(serve())
    assert caplog.messages == [RAISED]


def test_the_last_of_several_signals_decides(
    runs: Callable[[Coroutine[Any, Any, None]], None], level: LevelSignals, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve() -> None:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        level.heed(asyncio.get_running_loop())
        await _next_turns()
        assert logging.getLogger(OWN).level == logging.NOTSET
        os.kill(os.getpid(), signal.SIGUSR1)
        await _next_turns()
        assert logging.getLogger(OWN).level == logging.DEBUG

    runs(serve())
    assert (caplog.messages[0], caplog.messages[-1]) == (LOWERED, RAISED)


def test_libraries_keep_their_level(runs: Callable[[Coroutine[Any, Any, None]], None], level: LevelSignals) -> None:
    async def serve() -> None:
        level.heed(asyncio.get_running_loop())
        os.kill(os.getpid(), signal.SIGUSR1)
        await _next_turns()

    runs(serve())
    assert logging.getLogger(OWN).isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("a_library").isEnabledFor(logging.DEBUG)

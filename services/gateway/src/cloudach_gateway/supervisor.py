"""Runs several gateway processes on one listening socket. It restarts a process that dies, and stops all together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from cloudach_service.log_level import SIGNALS, LevelSignals, held_back
from prometheus_client.multiprocess import mark_process_dead

from .settings import Settings
from .worker import run_as_child

_log = logging.getLogger("cloudach.gateway")

_RESTART_PAUSE_S = 1.0


def run(settings: Settings, redis_url: str, listener: socket.socket, level: LevelSignals) -> None:
    """Runs the processes. Returns after SIGTERM or SIGINT, once every process has drained."""
    context = multiprocessing.get_context("spawn")
    stopping: list[int] = []  # the signals that asked us to stop
    children: list[BaseProcess] = []

    def start() -> None:
        child = context.Process(target=run_as_child, args=(settings, redis_url, listener, os.getpid()))
        with held_back():
            child.start()
            children.append(child)
        if level.last is not None:
            _send_signal(child, level.last)
        if stopping:  # the signal came while this child was being started
            _send_signal(child, stopping[-1])

    def stop(number: int, _: FrameType | None) -> None:
        stopping.append(number)
        for child in children:
            _send_signal(child, number)

    def change_level(number: int, _: FrameType | None) -> None:
        level.last = number
        for child in children:
            _send_signal(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for number in SIGNALS:
        signal.signal(number, change_level)
    for _ in range(settings.listen.processes):
        start()
    while children:
        wait([child.sentinel for child in children])
        for child in [c for c in children if not c.is_alive()]:
            children.remove(child)
            mark_process_dead(child.pid)  # type: ignore[no-untyped-call]  # its gauges would count for ever
            if not stopping:
                _log.error(
                    "a worker process died and is replaced", extra={"pid": child.pid, "exit_code": child.exitcode}
                )
                time.sleep(_RESTART_PAUSE_S)
            if not stopping:
                start()


def _send_signal(child: BaseProcess, number: int) -> None:
    if child.is_alive() and child.pid is not None:
        os.kill(child.pid, number)

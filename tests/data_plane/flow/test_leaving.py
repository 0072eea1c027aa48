"""A client that goes away takes all of its request along, at whatever stage that is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from tests.data_plane.conftest import Stack
from tests.data_plane.flow.client import Client, long_stream, settled, stack_of
from tests.support.processes import open_files
from tests.support.stack import Simulator, complaints, create_key
from tests.support.waiting import until


def leaves(client: Client, how: str) -> None:
    if how == "reset":
        client.reset()
    elif how == "half":
        client.socket.shutdown(socket.SHUT_WR)
    else:
        client.socket.close()


STAGES: dict[str, Callable[[Stack, Client], None]] = {}


def stage(function: Callable[[Stack, Client], None]) -> None:
    STAGES[function.__name__.replace("_", " ")] = function


def running(stack: Stack) -> None:
    until(lambda: stack.sim.stats()["running"] == 1)


@stage
def with_half_a_request(_: Stack, client: Client) -> None:
    client.send(long_stream(), part=0.7, expects=True)
    client.read_until(b"100 Continue\r\n\r\n")  # it waits for the rest


@stage
def before_the_first_byte(stack: Stack, client: Client) -> None:
    stack.sim.arm("prefill:20000")
    client.send(long_stream())
    running(stack)


@stage
def before_the_engine_answers_at_all(stack: Stack, client: Client) -> None:
    stack.sim.arm("hang")
    client.send(long_stream())
    until(lambda: stack.sim.stats()["refused_total"] == 1)


@stage
def in_heartbeats(stack: Stack, client: Client) -> None:
    stack.sim.arm("prefill:20000")
    client.send(long_stream())
    client.read_until(b": keep-alive")


@stage
def in_mid_stream(stack: Stack, client: Client) -> None:
    stack.sim.configure(rate=8)  # a tick is longer than it takes until all know that the client has left
    client.send(long_stream())
    client.read_until(b'"content":" ')


@stage
def in_a_stream_flat_out(_: Stack, client: Client) -> None:
    client.send(long_stream())
    client.read_until(b'"content":" ')


@stage
def while_it_does_not_read(stack: Stack, client: Client) -> None:
    client.send(long_stream())
    client.read_some()
    settled(stack.sim)


@stage
def in_a_failover(stack: Stack, client: Client) -> None:
    stack.sim.configure(rate=100)
    stack.sim.arm("shutdown@9")
    stack.sim.arm("http:503", None)
    client.send(long_stream())
    until(lambda: stack.sim.stats()["refused_total"] >= 2)


@stage
def with_a_new_engine_that_is_silent(stack: Stack, client: Client) -> None:
    stack.sim.configure(rate=100)
    stack.sim.arm("shutdown@9")
    stack.sim.arm("prefill:20000")
    client.send(long_stream())
    until(lambda: stack.sim.stats()["requests_total"] == 2)


@stage
def of_a_whole_answer(stack: Stack, client: Client) -> None:
    stack.sim.configure(rate=100)
    client.send({**long_stream(), "stream": False})
    running(stack)


@stage
def with_more_requests_behind_it(stack: Stack, client: Client) -> None:
    stack.sim.configure(rate=100)
    for _ in range(4):
        client.send(long_stream())
    client.read_until(b'"content":" ')


@stage
def in_silence_with_more_requests_behind_it(stack: Stack, client: Client) -> None:
    stack.sim.arm("prefill:20000")
    for _ in range(3):
        client.send(long_stream())
    running(stack)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("name", STAGES)
def test_who_leaves_takes_all_of_it_along(patient: Stack, name: str, how: str) -> None:
    patient.still_serves()
    patient.sim.reset()
    files, logged = open_files(patient.gateway), len(patient.gateway.requests)
    with Client(patient) as client:
        STAGES[name](patient, client)
        leaves(client, how)
        # One that was not read has to be told that its bytes go nowhere before anybody learns that it is gone.
        until(lambda: patient.sim.stats()["running"] == 0, within_s=15)
        until(lambda: len(patient.gateway.requests) == logged + 1)
        until(lambda: open_files(patient.gateway) <= files)
    entry = patient.gateway.requests[-1]
    if name == "with half a request":
        assert (entry["status"], patient.sim.stats()["requests_total"]) == (None, 0)
        return
    assert entry["outcome"] == "cancelled"
    assert patient.sim.stats()["requests_total"] <= 2
    if "more requests" in name:
        assert patient.sim.stats()["requests_total"] == 1, "nobody waits for the others"
    if "mid stream" in name:
        sent = patient.sim.stats()["sent_tokens_total"]
        assert sent - 10 <= entry["completion_tokens"] <= sent


def test_hundreds_that_leave_at_any_moment(flat: Simulator) -> None:
    """Nothing stays behind, and nothing is complained of."""
    flat.reset()
    flat.configure(rate=0)
    with stack_of(flat) as stack:
        stack.key = create_key(stack.gateway)
        stack.still_serves()
        files = open_files(stack.gateway)

        def leave(number: int) -> None:
            for turn in range(6):
                with Client(stack) as client:
                    client.send(long_stream(f"{number} {turn}"))
                    for _ in range((number * 7 + turn * 3) % 9):
                        client.read_some(20_000)
                    if turn % 2:
                        client.reset()

        leavers = [threading.Thread(target=leave, args=(number,)) for number in range(12)]
        for leaver in leavers:
            leaver.start()
        for leaver in leavers:
            leaver.join(60)
        until(lambda: flat.stats()["running"] == 0)
        until(lambda: open_files(stack.gateway) <= files)
        assert {entry["outcome"] for entry in stack.gateway.requests[1:]} <= {"cancelled", None}
        stack.still_serves()
        assert complaints(stack.gateway) == []

"""A client that reads slowly or not at all: nothing piles up, and nothing is lost."""

from __future__ import annotations

import signal
import time

import pytest

from tests.data_plane.conftest import Stack, chat
from tests.data_plane.flow.client import (
    KEEP_ALIVE,
    STRICT_S,
    TOKENS,
    Client,
    anonymous,
    body_of,
    long_stream,
    settled,
    stack_of,
)
from tests.data_plane.streamed import Streamed
from tests.support.processes import memory, open_files
from tests.support.stack import Simulator, complaints
from tests.support.waiting import until

KERNEL_BYTES = 16_000_000  # what the sockets of two connections may hold between them, at the very most


def test_who_does_not_read_holds_everything_up_and_loses_nothing(patient: Stack) -> None:
    """50 MB: the engine waits, the gateway does not grow, and then every byte comes."""
    with Client(patient) as client:
        client.send(long_stream(), close=True)
        plain = body_of(client.read_all())
    assert len(plain) > 40_000_000
    patient.logged(outcome="finished", completion_tokens=TOKENS)
    patient.sim.reset()
    before = memory(patient.gateway)
    with Client(patient) as client:
        client.send(long_stream(), close=True)
        begun = client.read_some(1000)
        sent = settled(patient.sim)
        assert sent < TOKENS * 0.75
        assert sent * (len(plain) / TOKENS) < KERNEL_BYTES
        assert memory(patient.gateway) - before < 5_000_000
        assert patient.sim.stats()["running"] == 1
        slept = time.monotonic()
        got = begun + client.read_all()
        assert time.monotonic() - slept < 60
    assert anonymous(body_of(got)) == anonymous(plain)
    assert b": keep-alive" not in got, "there was something to send all the time"
    patient.logged(outcome="finished", completion_tokens=TOKENS)


def test_stopping_and_going_on_again_and_again(patient: Stack) -> None:
    body = {**long_stream("Again"), "max_tokens": 60_000}
    with Client(patient) as client:
        client.send(body, close=True)
        plain = body_of(client.read_all())
    with Client(patient, window=16384) as client:
        client.send(body, close=True)
        got = b""
        for pause in range(12):
            while len(got) < 700_000 * (pause + 1):
                got += client.read_some(50_000)
            time.sleep(0.1)
        got += client.read_all()
    assert anonymous(body_of(got)) == anonymous(plain)


def test_who_never_reads_is_dropped(strict: Stack) -> None:
    files = open_files(strict.gateway)
    with Client(strict) as client:
        client.send(long_stream())
        client.read_some()
        until(lambda: strict.sim.stats()["running"] == 0)
        entry = strict.logged(code="client_too_slow")
        assert (entry["outcome"], entry["status"]) == ("cancelled", 200)
        got = client.read_all()
        assert got.endswith(b"RESET")
    stats = strict.sim.stats()
    assert stats["aborted_total"] == 1
    delivered = got.count(b'"content"')
    assert 0 < delivered <= entry["completion_tokens"] <= stats["sent_tokens_total"] < TOKENS
    until(lambda: open_files(strict.gateway) <= files)


@pytest.mark.parametrize("bytes_a_second", [400_000])
def test_who_reads_little_by_little_is_not(strict: Stack, bytes_a_second: int) -> None:
    """Three times the time in which one that reads nothing is dropped."""
    tokens = 120_000  # more than the kernel holds
    with Client(strict) as client:
        client.send({**long_stream(), "max_tokens": tokens}, close=True)
        got = b""
        began = time.monotonic()
        while (spent := time.monotonic() - began) < 3 * STRICT_S:
            while len(got) < spent * bytes_a_second:
                got += client.read_some(20_000)
            time.sleep(0.05)
        assert strict.sim.stats()["sent_tokens_total"] < tokens
        got += client.read_all()
    assert Streamed(body_of(got)).done
    strict.logged(outcome="finished", completion_tokens=tokens)


def test_the_last_bytes_have_a_time_too(strict: Stack) -> None:
    """All is generated and read from the engine, but the client does not take it."""
    strict.sim.arm("huge@1:14000000")
    with Client(strict) as client:
        client.send(chat("Much", stream=True, max_tokens=1))
        client.read_some()
        strict.logged(code="client_too_slow", completion_tokens=1)
        assert client.read_all().endswith(b"RESET")


def test_a_stream_behind_an_answer_that_is_not_read(strict: Stack) -> None:
    """The connection takes nothing from the stream's first byte on."""
    strict.sim.configure(rate=0)
    long_answer = chat("Much", max_tokens=6000, ignore_eos=True, logprobs=True, top_logprobs=20)
    with Client(strict) as client:
        client.send(long_answer)
        client.read_some()
        client.send(long_stream())
        until(lambda: strict.sim.stats()["requests_total"] == 2)
        entry = strict.logged(code="client_too_slow")
        assert entry["stream"]
        assert strict.sim.stats()["sent_tokens_total"] < TOKENS * 0.75
    assert strict.gateway.requests[-2]["outcome"] == "finished"


def test_a_drain_does_not_wait_for_who_does_not_read(flat: Simulator) -> None:
    flat.reset()
    with stack_of(flat, slow_reader_s=60.0) as stack, Client(stack) as client:
        client.send(long_stream())
        client.read_some()
        settled(flat)
        stack.gateway.process.send_signal(signal.SIGTERM)
        assert stack.gateway.process.wait(30) == 0
        until(lambda: flat.stats()["running"] == 0)
        assert complaints(stack.gateway) == []


def test_an_engine_that_breaks_off_while_nobody_reads(patient: Stack) -> None:
    """It is noticed when the client reads on."""
    body = {**long_stream("Broken"), "max_tokens": 150_000}
    with Client(patient) as client:
        client.send(body, close=True)
        expected = Streamed(body_of(client.read_all()))
    patient.sim.reset()
    with Client(patient) as client:
        client.send(body, close=True)
        begun = client.read_some()
        settled(patient.sim)
        patient.sim.strike("end")
        got = Streamed(body_of(begun + client.read_all()))
    assert got.told() == expected.told()
    assert len(patient.logged(outcome="finished")["failovers"]) == 1


def test_heartbeats_in_the_middle_of_a_stream(patient: Stack) -> None:
    patient.sim.arm("stall@5")
    with stack_of(patient.sim, heartbeat_s=0.5) as stack, Client(stack) as client:
        began = time.monotonic()
        client.send(chat(stream=True, max_tokens=9, ignore_eos=True), close=True)
        read = b""
        while read.count(KEEP_ALIVE) < 4:
            read += client.read_some(1000)
        assert patient.sim.wake() == 1
        got = Streamed(body_of(read + client.read_all()))
    assert got.done
    assert 4 <= got.comments <= (time.monotonic() - began) / 0.5
    before, _, after = got.raw.rpartition(b": keep-alive\n\n")
    assert (before.count(b'"content"'), after.count(b'"content"')) == (6, 4), "the role, five tokens; four more"


@pytest.mark.parametrize("fault", ["hang", "stall@0", "prefill:20000"])
def test_heartbeats_until_the_first_token_does_not_come(flat: Simulator, fault: str) -> None:
    flat.reset()
    with stack_of(flat, first_token_s=4.0, heartbeat_s=0.5) as stack:
        flat.arm(fault)
        began = time.monotonic()
        got = Streamed(stack.post(json=chat(stream=True, max_tokens=9)).content)
        assert 3 <= got.comments <= (time.monotonic() - began) / 0.5
        assert got.error is not None
        assert got.error["code"] == "timeout"
        until(lambda: flat.stats()["running"] == 0, within_s=10)
        assert stack.logged(code="timeout")["heartbeats"] == got.comments

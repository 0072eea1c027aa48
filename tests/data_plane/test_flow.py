"""A client that reads slowly, not at all, or goes away: nothing piles up, nothing is lost, nothing stays behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import Stack, chat
from tests.data_plane.streamed import Streamed
from tests.support.processes import memory, open_files
from tests.support.stack import Simulator, complaints, create_key, served_by, start_gateway, start_sim
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

CHAT = "/v1/chat/completions"
KEEP_ALIVE = b": keep-alive\n\n"
TOKENS = 260_000  # of about 200 bytes each
CONTEXT = 400_000
KERNEL_BYTES = 16_000_000  # what the sockets of two connections may hold between them, at the very most
# A busy machine may be silent for a second.
TIMEOUTS = {"heartbeat_s": 2.0, "first_token_s": 30.0, "between_tokens_s": 30.0, "drain_s": 1.0}

STRICT_S = 2.0


@contextlib.contextmanager
def stack_of(sim: Simulator, **timeouts: float) -> Iterator[Stack]:
    config = {
        "models": [served_by(sim, max_model_len=CONTEXT)],
        "timeouts": {**TIMEOUTS, **timeouts},
        "failover": {"spread_s": 0.05},
    }
    with start_gateway(config) as gateway:
        # One at a time: a request that were still running somewhere would keep the next one out.
        yield Stack(sim, gateway, create_key(gateway, concurrent_streams=1))


@pytest.fixture(scope="module")
def flat() -> Iterator[Simulator]:
    with start_sim(flat=True, model="sim", max_model_len=CONTEXT) as sim:
        yield sim


@pytest.fixture(scope="module")
def patient_stack(flat: Simulator) -> Iterator[Stack]:
    with stack_of(flat, slow_reader_s=60.0) as stack:
        yield stack


@pytest.fixture(scope="module")
def strict_stack(flat: Simulator) -> Iterator[Stack]:
    with stack_of(flat, slow_reader_s=STRICT_S) as stack:
        yield stack


@pytest.fixture
def patient(patient_stack: Stack) -> Iterator[Stack]:
    yield from undisturbed(patient_stack)


@pytest.fixture
def strict(strict_stack: Stack) -> Iterator[Stack]:
    yield from undisturbed(strict_stack)


def undisturbed(stack: Stack) -> Iterator[Stack]:
    stack.sim.configure(rate=0)
    stack.sim.reset()
    yield stack
    stack.sim.reset()
    until(lambda: stack.sim.stats()["running"] == 0)
    stack.still_serves()
    assert complaints(stack.gateway) == []


class Client:
    """A connection by hand."""

    def __init__(self, stack: Stack, *, window: int = 65536) -> None:
        url = httpx.URL(stack.gateway.url)
        self.key = stack.key
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(60)
        self.socket.connect((url.host, url.port))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self, body: dict[str, Any], *, path: str = CHAT, close: bool = False, part: float = 1.0, expects: bool = False
    ) -> None:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head += "Expect: 100-continue\r\n" if expects else ""
        request = f"{head}{'Connection: close' if close else 'X-Y: z'}\r\n\r\n".encode() + content
        self.socket.sendall(request[: int(len(request) * part)])

    def read_some(self, size: int = 1) -> bytes:
        return self.socket.recv(size)

    def read_until(self, mark: bytes) -> bytes:
        got = b""
        while mark not in got:
            part = self.socket.recv(65536)
            assert part, got[-300:]
            got += part
        return got

    def read_all(self) -> bytes:
        """Until the connection ends; b"RESET" is put behind what a reset leaves."""
        parts = []
        try:
            while part := self.socket.recv(1_000_000):
                parts.append(part)
        except ConnectionResetError:
            parts.append(b"RESET")
        return b"".join(parts)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def long_stream(text: str = "Go on", **fields: Any) -> dict[str, Any]:
    return chat(text, stream=True, max_tokens=TOKENS, ignore_eos=True, **fields)


def settled(sim: Simulator, *, at_least: int = 1) -> int:
    """Tokens sent when no more have been for a while: the engine waits."""
    sent, since = -1, time.monotonic()
    deadline = since + 90
    while time.monotonic() - since < 0.7:
        now = sim.stats()["sent_tokens_total"]
        if now != sent or now < at_least:
            sent, since = now, time.monotonic()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return sent


def body_of(answer: bytes) -> bytes:
    """Without head and chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    parts, at = [], 0
    while True:
        end = rest.index(b"\r\n", at)
        size = int(rest[at:end], 16)
        if size == 0:
            assert rest[end:] == b"\r\n\r\n"
            return b"".join(parts)
        parts.append(rest[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def anonymous(stream: bytes) -> bytes:
    """Without what is each stream's own."""
    return re.sub(rb'"id":"[^"]*"|"created":\d+', b"", stream)


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


def test_one_connection_for_many_requests(patient: Stack) -> None:
    url = httpx.URL(patient.gateway.url)
    connection = http.client.HTTPConnection(url.host, url.port or 80, timeout=30)
    headers = {"authorization": f"Bearer {patient.key}", "content-type": "application/json"}
    used = set()
    for kind in ["stream", "whole", "stream", "bad", "stream", "beats", "whole", "models", "stream"]:
        if kind == "beats":
            patient.sim.arm("stall@0")
        body = chat(f"{kind}", max_tokens=7, ignore_eos=True, stream=kind in ("stream", "beats"))
        if kind == "bad":
            body["max_tokens"] = "many"
        if kind == "models":
            connection.request("GET", "/v1/models", headers=headers)
        else:
            connection.request("POST", CHAT, body=json.dumps(body), headers=headers)
        used.add(connection.sock)
        answer = connection.getresponse()
        if kind == "beats":  # the first has brought the head
            patient.sim.wake()
        content = answer.read()
        assert answer.status == (400 if kind == "bad" else 200)
        if kind in ("stream", "beats"):
            got = Streamed(content)
            assert got.done
            assert got.usage is not None
            assert got.usage["completion_tokens"] == 7
            assert (got.comments >= 1) == (kind == "beats")
        elif kind == "whole":
            assert json.loads(content)["usage"]["completion_tokens"] == 7
    connection.close()
    assert len(used) == 1


def test_engines_are_not_connected_to_for_each_request(flat: Simulator) -> None:
    flat.reset()
    flat.configure(rate=0)
    with (
        TcpProxy(flat.url) as proxy,
        start_gateway({"models": [served_by(max_model_len=CONTEXT, upstreams=[proxy.url])]}) as gateway,
    ):
        stack = Stack(flat, gateway, create_key(gateway))
        for number in range(30):
            whole = {"prompt_logprobs": 1} if number % 3 == 2 else {}
            body = chat(f"{number}", max_tokens=5, stream=number % 3 == 0, **whole)
            assert stack.post(json=body).status_code == 200
        assert proxy.connections == 1


def test_requests_one_behind_the_other_are_answered_in_order(patient: Stack) -> None:
    logged = len(patient.gateway.requests)
    with Client(patient) as client:
        client.key = create_key(patient.gateway)
        for number, stream in enumerate((True, False, True)):
            client.send(chat(f"{number}", max_tokens=5, ignore_eos=True, stream=stream), close=number == 2)
        answer = client.read_all()
    heads = [match.start() for match in re.finditer(rb"HTTP/1\.1 200 OK", answer)]
    assert len(heads) == 3
    first, second, third = (answer[a:b] for a, b in zip(heads, [*heads[1:], len(answer)], strict=True))
    for stream in (first, third):
        assert Streamed(body_of(stream)).done
    whole = json.loads(second.partition(b"\r\n\r\n")[2])
    assert whole["usage"]["completion_tokens"] == 5
    until(lambda: len(patient.gateway.requests) == logged + 3)
    assert [entry["stream"] for entry in patient.gateway.requests[-3:]] == [True, False, True]

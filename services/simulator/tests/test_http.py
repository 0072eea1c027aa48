"""The standalone server's HTTP, byte by byte, and its clock."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest

from .conftest import CHAT, Sim, StartSim

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "ignore_eos": True}


def post(body: Any, *headers: str, path: str = CHAT, version: str = "1.1", length: bool = True) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "host: x", "content-type: application/json", *headers]
    if length:
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class Raw:
    """One plain connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:-2])
        body = b""
        parts = []
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                parts.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
            body = b"".join(parts)
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body


async def connect(sim: Sim) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", sim.port))


async def test_a_connection_is_kept_and_requests_on_it_may_be_sent_ahead(start_sim: StartSim) -> None:
    sim = await start_sim(rate=500.0)
    raw = await connect(sim)
    raw.writer.write(post({**HELLO, "stream": True}, "x-request-id: a") + post(HELLO, "x-request-id: b") * 2)
    answers = [await raw.response() for _ in range(3)]
    assert [headers["x-request-id"] for _, headers, _ in answers] == ["a", "b", "b"]
    assert answers[0][2].endswith(b"data: [DONE]\n\n")
    assert json.loads(answers[2][2])["usage"]["completion_tokens"] == 3
    raw.writer.close()


async def test_bodies_may_come_in_pieces_chunked_and_after_a_continue(start_sim: StartSim) -> None:
    sim = await start_sim()
    raw = await connect(sim)
    for byte in post(HELLO):
        raw.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await raw.response())[0] == 200
    data = json.dumps(HELLO).encode()
    head = post(b"", "transfer-encoding: chunked", "expect: 100-continue", length=False)
    raw.writer.write(head)
    assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.writer.write(b"".join(b"1\r\n" + bytes([b]) + b"\r\n" for b in data) + b"0\r\n\r\n")
    assert (await raw.response())[0] == 200
    raw.writer.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("version", "header"), [("1.0", "x: y"), ("1.1", "connection: close")])
async def test_a_connection_is_closed_when_the_client_wants_it(
    start_sim: StartSim, stream: bool, version: str, header: str
) -> None:
    sim = await start_sim()
    raw = await connect(sim)
    raw.writer.write(post({**HELLO, "stream": stream}, header, version=version))
    answer = await raw.reader.read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"chunked" in answer) == (stream and version == "1.1")
    assert b"connection: close" in answer or version == "1.1"
    raw.writer.close()


@pytest.mark.parametrize("late", [True, False])
async def test_a_wish_to_upgrade_is_ignored(start_sim: StartSim, late: bool) -> None:
    """And what stands in the body is no request."""
    sim = await start_sim()
    raw = await connect(sim)
    inner = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    sent = post(inner, "connection: upgrade", "upgrade: h2c")
    raw.writer.write(sent[: -len(inner)])
    if late:
        await asyncio.sleep(0.05)
    raw.writer.write(inner + post(HELLO, "connection: upgrade", "upgrade: h2c"))
    assert (await raw.response())[0] == 400
    status, _, body = await raw.response()
    assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 3)
    raw.writer.close()


async def test_many_wishes_to_upgrade_in_one_read(start_sim: StartSim) -> None:
    sim = await start_sim()
    raw = await connect(sim)
    raw.writer.write(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 900)
    for _ in range(900):
        assert (await raw.response())[0] == 200
    raw.writer.close()


async def test_what_is_no_http_is_refused(start_sim: StartSim) -> None:
    sim = await start_sim()
    raw = await connect(sim)
    raw.writer.write(b"\x16\x03\x01nonsense\r\n\r\n")
    assert (await raw.reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    raw.writer.close()


async def test_a_head_request_has_no_body(start_sim: StartSim) -> None:
    sim = await start_sim()
    raw = await connect(sim)
    raw.writer.write(b"HEAD /nope HTTP/1.1\r\nhost: x\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\n\r\n")
    head = await raw.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert (await raw.response())[2] == b'{"version":"0.29.0"}'
    raw.writer.close()


async def test_a_body_too_large_is_refused_and_the_next_request_served(start_sim: StartSim) -> None:
    sim = await start_sim(max_body=10_000)
    response = await sim.chat(user="x" * 20_000)
    assert response.status_code == 413
    assert (await sim.chat(max_tokens=1)).status_code == 200


async def test_deep_json_is_refused(start_sim: StartSim) -> None:
    sim = await start_sim()
    nested = b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    response = await sim.http.post(CHAT, content=nested, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("rate", [0.0, 20_000.0])
async def test_a_reader_that_stalls_bounds_what_is_held_and_loses_nothing(start_sim: StartSim, rate: float) -> None:
    sim = await start_sim(rate=rate, max_model_len=200_000)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", sim.port))
    raw = Raw(*await asyncio.open_connection(sock=client, limit=65536))
    total = 100_000
    raw.writer.write(post({**HELLO, "max_tokens": total, "stream": True, "return_token_ids": True}, "x-request-id: s"))
    # About 260 bytes a chunk: the kernel's buffers and 64 KiB in the process.
    counts = [(-1, -1)] * 5
    async with asyncio.timeout(30):
        while counts[-1][0] != counts[-5][0] or counts[-1][0] <= 0:  # until they are full
            await asyncio.sleep(0.1)
            entry = (await sim.http.get("/sim/requests/s")).json()
            if "sent_tokens" in entry:  # the request has been read
                counts.append((entry["sent_tokens"], entry["generated_tokens"]))
    sent, generated = counts[-1]
    assert sent < 50_000
    # Under a clock the engine goes on for the slow reader, as a real one does; flat out it waits.
    assert (generated > counts[-5][1]) == bool(rate)
    async with asyncio.timeout(60):
        _, _, body = await raw.response()
    raw.writer.close()
    seen = 0
    for line in body.decode().split("\n\n"):
        if line.startswith("data: {"):
            seen += len(json.loads(line[6:])["choices"][0].get("token_ids") or [])
    assert seen == total
    assert body.endswith(b"data: [DONE]\n\n")


async def test_keys_guard_the_api_alone(start_sim: StartSim) -> None:
    sim = await start_sim(api_keys=("one", "two"))
    for headers in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}):
        for path in ("/v1/models", "/v1/nope"):
            response = await sim.http.get(path, headers=headers)
            assert (response.status_code, response.text) == (401, '{"error":"Unauthorized"}')
    assert (await sim.http.get("/v1/models", headers={"authorization": "Bearer two"})).status_code == 200
    for path in ("/health", "/version", "/metrics"):
        assert (await sim.http.get(path)).status_code == 200
    assert (await sim.http.get("/sim/stats")).status_code == 401
    assert (await sim.http.get("/sim/stats", headers={"authorization": "Bearer one"})).status_code == 200


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_web_pages_have_no_say(start_sim: StartSim, headers: dict[str, str]) -> None:
    sim = await start_sim()
    armed = await sim.http.post("/sim/faults", json={"fault": "refuse"}, headers=headers)
    assert armed.status_code == 403
    assert "access-control-allow-origin" not in armed.headers
    assert (await sim.http.get("/sim/requests", headers=headers)).status_code == 403
    assert (await sim.chat(max_tokens=1)).status_code == 200


async def test_routes_lie_under_the_root_path_too(start_sim: StartSim) -> None:
    sim = await start_sim(root_path="/slug")
    for path in ("/slug/v1/models", "/v1/models", "/slug/sim/stats"):
        assert (await sim.http.get(path)).status_code == 200
    assert (await sim.http.get("/slugs/v1/models")).status_code == 404


async def test_metrics_and_tokens(start_sim: StartSim) -> None:
    sim = await start_sim()
    await sim.chat(max_tokens=3, ignore_eos=True)
    metrics = (await sim.http.get("/metrics")).text
    assert 'vllm:generation_tokens_total{engine="0",model_name="sim"} 3.0' in metrics
    tokens = (await sim.http.post("/tokenize", json={"prompt": "The sea", "return_token_strs": True})).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    back = await sim.http.post("/detokenize", json={"tokens": tokens["tokens"]})
    assert back.json() == {"prompt": "The sea"}
    messages = [{"role": "user", "content": "x"}]
    chat = (await sim.http.post("/tokenize", json={"messages": messages})).json()["tokens"]
    whole = (await sim.chat(messages=messages, max_tokens=1, return_token_ids=True)).json()
    assert chat == whole["prompt_token_ids"]


async def test_streams_tick_together_at_the_rate_that_was_asked(start_sim: StartSim) -> None:
    sim = await start_sim(rate=5.0)

    async def arrivals(offset_s: float) -> list[float]:
        await asyncio.sleep(offset_s)
        raw = await connect(sim)
        raw.writer.write(post({**HELLO, "max_tokens": 9, "stream": True}))
        await raw.reader.readuntil(b"\r\n\r\n")
        times = []
        while size := int(await raw.reader.readline(), 16):
            await raw.reader.readexactly(size + 2)
            times.append(time.monotonic())
        raw.writer.close()
        return times

    first, second = await asyncio.gather(arrivals(0), arrivals(0.3))
    # Role chunk and first token at once, 7 ticks to the last token but one.
    assert 6 / 5 < first[8] - first[1] < 10
    # The second stream began between two ticks of the first one, 0.1 s from either, and ticks with it.
    near = [min(abs(a - b) for b in first[2:]) for a in second[2:7]]
    assert sorted(near)[len(near) // 2] < 0.05


async def test_rate_delay_and_chunk_size_can_be_set(start_sim: StartSim) -> None:
    sim = await start_sim(rate=10.0, tokens_per_chunk=4)
    begun = time.monotonic()
    response = await sim.chat(max_tokens=9, ignore_eos=True, stream=True, return_token_ids=True)
    assert time.monotonic() - begun > 0.7
    sizes = [part.partition("]")[0].count(",") + 1 for part in response.text.split('"token_ids":[')[1:]]
    assert sizes == [1, 4, 4]
    begun = time.monotonic()
    assert (await sim.chat(max_tokens=5000, ignore_eos=True, headers={"x-sim-rate": "0"})).status_code == 200
    assert time.monotonic() - begun < 20  # at the rate of 10 it would be two minutes
    assert (await sim.chat(headers={"x-sim-rate": "fast"})).status_code == 400
    assert (await sim.http.post("/sim/config", json={"rate": 0, "ttft_ms": 200})).json() == {"rate": 0, "ttft_ms": 200}
    begun = time.monotonic()
    await sim.chat(max_tokens=5000, ignore_eos=True)
    assert 0.2 <= time.monotonic() - begun < 20
    assert (await sim.http.post("/sim/config", json={"port": 5})).status_code == 400

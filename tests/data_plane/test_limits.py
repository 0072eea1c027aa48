"""Limits over several gateway processes, exact to the request; Retry-After that tells the truth."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.data_plane.conftest import chat
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim, used
from tests.support.waiting import until

WINDOW_S = 6.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with start_sim(rate=500, model="sim") as sim:
        yield sim


@pytest.fixture(scope="module")
def gateway(engine: Simulator) -> Iterator[Gateway]:
    config = {
        "models": [served_by(engine)],
        "listen": {"processes": 4, "metrics_port": 0},
        "limits": {"window_s": WINDOW_S, "lease_ttl_s": 2.0},
    }
    with start_gateway(config) as running:
        yield running


async def post(client: httpx.AsyncClient, gateway: Gateway, key: str, **body: object) -> httpx.Response:
    return await client.post(
        f"{gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json=chat(**({"max_tokens": 1} | body)),
    )


def many_connections() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None))


@pytest.mark.parametrize("form", ["retry-after", "retry-after-ms"])
async def test_exactly_thirty_of_120_and_the_others_when_they_were_told(gateway: Gateway, form: str) -> None:
    """So few that all of them have come long before the window is over."""
    key = create_key(gateway, requests_per_minute=30)
    clock = asyncio.get_running_loop().time
    async with many_connections() as client:

        async def ask() -> tuple[httpx.Response, float]:
            """The answer, and when it came: a place is kept for a few seconds, and others' answers may take as long."""
            return await post(client, gateway, key), clock()

        first = await asyncio.gather(*(ask() for _ in range(120)))
        statuses = [answer.status_code for answer, _ in first]
        assert (statuses.count(200), statuses.count(429)) == (30, 90)

        async def wait_and_try_again(refused: httpx.Response, told_at: float) -> int:
            seconds = float(refused.headers[form]) / (1000 if form.endswith("ms") else 1)
            await asyncio.sleep(max(0.0, told_at + seconds - clock()))
            return (await post(client, gateway, key)).status_code

        again = await asyncio.gather(*(wait_and_try_again(*told) for told in first if told[0].status_code == 429))
    assert again == [200] * 90, "each one is let in at its first try"


async def test_tokens_are_reserved_and_given_back(gateway: Gateway) -> None:
    key = create_key(gateway, tokens_per_minute=1000)
    async with many_connections() as client:
        answers = await asyncio.gather(*(post(client, gateway, key, max_tokens=480) for _ in range(10)))
        assert sorted(a.status_code for a in answers) == [200] * 2 + [429] * 8, "two times 480 and their prompts fit"
        refused = next(a for a in answers if a.status_code == 429)
        assert refused.json()["error"]["type"] == "tokens"
        assert int(refused.headers["x-ratelimit-limit-tokens"]) == 1000
        never = await post(client, gateway, key, max_tokens=2000)
        assert never.status_code == 429
        assert never.headers["x-should-retry"] == "false"
        assert "retry-after" not in never.headers
        key = create_key(gateway, tokens_per_minute=1000)  # the refused ones above hold their promised places
        spent = await post(client, gateway, key, max_tokens=500, stop=["e"])
        total = spent.json()["usage"]["total_tokens"]
        assert total < 400
        headers = {"authorization": f"Bearer {key}"}
        async with asyncio.timeout(WINDOW_S):  # then it is forgotten
            while True:
                looked = await client.get(f"{gateway.base_url}/models", headers=headers)
                remaining = int(looked.headers["x-ratelimit-remaining-tokens"])
                if remaining == 1000 - total:
                    break
                assert remaining < 500, "the reservation became the real usage, and nothing else"


async def test_concurrent_streams(gateway: Gateway, engine: Simulator) -> None:
    key = create_key(gateway, concurrent_streams=3)
    engine.reset()
    engine.arm("stall@3", times=None)  # until all have been there
    async with many_connections() as client:
        asked = [asyncio.create_task(post(client, gateway, key, max_tokens=20, min_tokens=20)) for _ in range(10)]
        async with asyncio.timeout(30):
            while sum(task.done() for task in asked) < 7:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.to_thread(until, lambda: engine.stats()["generated_tokens_total"] == 3 * 3)
        engine.reset()
        assert engine.wake() == 3
        answers = await asyncio.gather(*asked)
        assert sorted(a.status_code for a in answers) == [200] * 3 + [429] * 7
        refused = next(a for a in answers if a.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "3" in refused.json()["error"]["message"]
        await asyncio.sleep(int(refused.headers["retry-after"]))
        assert (await post(client, gateway, key, max_tokens=20, min_tokens=20)).status_code == 200


async def test_the_first_wait_for_a_stream_is_short(gateway: Gateway, engine: Simulator) -> None:
    """Nothing is known of this key's streams yet: the one that runs may be over in a moment."""
    key = create_key(gateway, concurrent_streams=1)
    engine.reset()
    engine.arm("stall@3", times=None)
    async with many_connections() as client:
        running = asyncio.create_task(post(client, gateway, key, max_tokens=20, min_tokens=20))
        await asyncio.to_thread(until, lambda: engine.stats()["generated_tokens_total"] == 3)
        refused = await post(client, gateway, key)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        engine.reset()
        engine.wake()
        assert (await running).status_code == 200
        await asyncio.sleep(1)
        assert (await post(client, gateway, key)).status_code == 200


GUIDED = {
    "response_format": {"response_format": {"type": "json_object"}},
    "structured_outputs": {"structured_outputs": {"choice": ["yes", "no"]}},
    "required tool": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": "required",
    },
}


async def test_guided_requests_at_a_time(gateway: Gateway, engine: Simulator) -> None:
    """Over four processes exactly as many as the tenant may have; the others go on; who leaves is billed."""
    key = create_key(gateway, tenant="guided", guided_requests=3)
    engine.reset()
    engine.arm("prefill:60000", times=3)
    bodies = [{**GUIDED[name], "stream": stream} for name in GUIDED for stream in (True, False)] * 2
    async with many_connections() as client:
        asked = [asyncio.create_task(post(client, gateway, key, max_tokens=20, **body)) for body in bodies]
        async with asyncio.timeout(30):
            while sum(task.done() for task in asked) < len(bodies) - 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answers = [task.result() for task in asked if task.done()]
        assert {answer.status_code for answer in answers} == {429}
        assert {answer.json()["error"]["code"] for answer in answers} == {"rate_limit_exceeded"}
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        assert (await post(client, gateway, key, tools=GUIDED["required tool"]["tools"])).status_code == 200
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.to_thread(until, lambda: used(gateway, key).get("cancelled", 0) == 3)
    assert used(gateway, key)["prompt_tokens"] >= 3 * 5, "what was started is billed"
    async with many_connections() as client:
        assert (await post(client, gateway, key, max_tokens=20, **GUIDED["response_format"])).status_code == 200


def test_the_sdk_waits_as_told(gateway: Gateway) -> None:
    key = create_key(gateway, requests_per_minute=1)
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=1) as sdk:
        began = time.monotonic()
        for _ in range(2):
            sdk.chat.completions.create(**chat(max_tokens=1))  # type: ignore[call-overload]
    assert WINDOW_S - 0.5 < time.monotonic() - began < WINDOW_S + 20


def test_headers_on_every_response(gateway: Gateway) -> None:
    key = create_key(gateway, requests_per_minute=10, tokens_per_minute=100_000)
    headers = {"authorization": f"Bearer {key}"}
    for body in (chat(max_tokens=1), chat(max_tokens=1, stream=True), chat(model="nope"), chat(n="x")):
        answer = httpx.post(f"{gateway.base_url}/chat/completions", headers=headers, json=body)
        for kind, limit in (("requests", "10"), ("tokens", "100000")):
            assert answer.headers[f"x-ratelimit-limit-{kind}"] == limit
            assert int(answer.headers[f"x-ratelimit-remaining-{kind}"]) <= int(limit)
            assert answer.headers[f"x-ratelimit-reset-{kind}"][-1] == "s"


def test_a_killed_process_gives_its_streams_back(gateway: Gateway, engine: Simulator) -> None:
    """All four processes are killed under a stream; their successors find the lease free after its time to live."""
    key = create_key(gateway, concurrent_streams=1)
    engine.configure(rate=5)
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.base_url}/chat/completions"
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", url, headers=headers, json=chat(stream=True, max_tokens=500, ignore_eos=True)) as answer,
    ):
        assert answer.status_code == 200
        assert httpx.post(url, headers=headers, json=chat(max_tokens=1)).status_code == 429
        for pid in worker_pids(gateway):
            os.kill(pid, signal.SIGKILL)
        for _ in answer.iter_raw():
            pass
    engine.configure(rate=500)
    until(lambda: engine.stats()["running"] == 0)

    def let_in() -> bool:
        try:
            return httpx.post(url, headers=headers, json=chat(f"{time.time()}", max_tokens=1)).status_code == 200
        except httpx.TransportError:
            return False

    until(let_in, within_s=60)  # four processes start again first, on however slow a machine


def worker_pids(gateway: Gateway) -> list[int]:
    """The gateway's children that serve: those that have its code loaded (not Valkey, nor a resource tracker)."""
    parent = gateway.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_the_usage_totals_count_each_request_once(gateway: Gateway) -> None:
    key = create_key(gateway)
    headers = {"authorization": f"Bearer {key}"}
    answers = [
        httpx.post(f"{gateway.base_url}/chat/completions", headers=headers, json=chat(max_tokens=7)).json()
        for _ in range(10)
    ]
    until(lambda: used(gateway, key).get("finished", 0) == 10)
    usage = used(gateway, key)
    assert usage["completion_tokens"] == sum(a["usage"]["completion_tokens"] for a in answers)
    assert usage["prompt_tokens"] == sum(a["usage"]["prompt_tokens"] for a in answers)

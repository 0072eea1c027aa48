"""The guide's retrying program against real limits and connections that really break."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.support.guide_examples import Example
from tests.support.stack import Gateway, Simulator, create_key
from tests.support.tcp_proxy import TcpProxy

from .programs import Run, run
from .stacks import Answer, Stack, write

PROMPT = "Hello!"
CONNECTION_NOTICE = "\nConnection error, retrying...\n"
SDK_TRIES = 3


@pytest.fixture
def program(guide: dict[str, Example], tmp_path: Path) -> Path:
    return write(tmp_path, "retry.py", guide["retry.py"].code)


@pytest.fixture
def first_program(seed: dict[str, Example], tmp_path: Path) -> Path:
    """The first guide's, where the example goes on from an earlier one that had imported `os`."""
    return write(tmp_path, "first.py", "import os\n" + seed["retry.py"].code)


@pytest.fixture
def answer(stack: Stack, own: tuple[Simulator, Gateway]) -> Answer:
    found = stack.answer(PROMPT)
    assert found is not None
    return found


def _run(program: Path, stack: Stack, through: TcpProxy, **env: str) -> Run:
    env["CLOUDACH_BASE_URL"] = f"{through.url}/v1"
    return run([sys.executable, program], env=stack.env(**env), cwd=program.parent)


def _statuses(gateway: Gateway, api_key: str) -> list[int]:
    key_id = api_key.split("-")[3]
    return [request["status"] for request in gateway.requests if request["key_id"] == key_id]


def _body(stack: Stack, **more: object) -> dict[str, object]:
    return {"model": stack.model, "messages": [{"role": "user", "content": PROMPT}], **more}


@pytest.mark.parametrize("which", ["program", "first_program"])
def test_a_429_is_waited_out_and_the_next_try_is_admitted(
    request: pytest.FixtureRequest, stack: Stack, own: tuple[Simulator, Gateway], answer: Answer, which: str
) -> None:
    _, gateway = own
    key = create_key(gateway, requests_per_minute=1)

    def use_up(connection: int) -> None:
        if connection == 0:
            stack.post(_body(stack, max_tokens=1), api_key=key)

    with TcpProxy(gateway.url, on_connect=use_up) as proxy:
        done = _run(request.getfixturevalue(which), stack, proxy, CLOUDACH_API_KEY=key)
    assert done.status == 0, done.errors
    assert done.output.text == answer.text + "\n"
    assert _statuses(gateway, key) == [200, 429, 200]


def test_after_the_sdks_own_tries_the_program_waits_as_retry_after_says(
    stack: Stack, own: tuple[Simulator, Gateway], answer: Answer, program: Path
) -> None:
    """The key may have one stream at a time, and another client holds it until the SDK has given up once."""
    sim, gateway = own
    key = create_key(gateway, concurrent_streams=1)
    for _ in range(3):  # short streams, so that the gateway expects the next one to be short too
        stack.post(_body(stack, max_tokens=1), api_key=key)
    held = threading.Event()

    def hold() -> None:
        headers = {"authorization": f"Bearer {key}"}
        sim.arm("stall@1")
        url = f"{stack.base_url}/chat/completions"
        with httpx.stream("POST", url, json=_body(stack, stream=True), headers=headers, timeout=30):
            held.set()
            deadline = time.monotonic() + 28  # then the engine counts as broken
            while _statuses(gateway, key).count(429) < SDK_TRIES and time.monotonic() < deadline:
                time.sleep(0.02)

    def on_connect(connection: int) -> None:
        if connection == 0:
            threading.Thread(target=hold, daemon=True).start()
            held.wait(30)

    with TcpProxy(gateway.url, on_connect=on_connect) as proxy:
        done = _run(program, stack, proxy, CLOUDACH_API_KEY=key)
    assert done.status == 0, done.errors
    notice, _, text = done.output.text.removeprefix("\n").partition("\n")
    assert re.fullmatch(r"Retrying in \d+\.0s \(attempt 1\)\.\.\.", notice)
    assert text == answer.text + "\n"
    assert _statuses(gateway, key).count(429) == SDK_TRIES


@pytest.mark.parametrize("refused", [1, SDK_TRIES])
def test_a_reset_connection_is_tried_again(
    stack: Stack, own: tuple[Simulator, Gateway], answer: Answer, program: Path, refused: int
) -> None:
    """The SDK tries three times by itself; after that it is the program's turn."""
    _, gateway = own
    with TcpProxy(gateway.url, resets=[0] * refused) as proxy:
        done = _run(program, stack, proxy)
        assert proxy.connections == refused + 1
    assert done.status == 0, done.errors
    notice = CONNECTION_NOTICE if refused == SDK_TRIES else ""
    assert done.output.text == f"{notice}{answer.text}\n"


@pytest.mark.parametrize("which", ["program", "first_program"])
def test_a_connection_that_breaks_in_mid_stream_is_started_over(
    request: pytest.FixtureRequest, stack: Stack, own: tuple[Simulator, Gateway], answer: Answer, which: str
) -> None:
    _, gateway = own
    with TcpProxy(gateway.url, resets=[4000]) as proxy:
        done = _run(request.getfixturevalue(which), stack, proxy)
        assert proxy.connections == 2
    assert done.status == 0, done.errors
    first, notice, second = done.output.text.partition(CONNECTION_NOTICE)
    assert notice
    assert first
    assert answer.text.startswith(first)
    assert second == answer.text + "\n"

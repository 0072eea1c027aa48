"""An engine breaks off in mid-stream: the client's stream is the one it would have been."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import chat
from tests.data_plane.streamed import Streamed
from tests.support.ports import free_port
from tests.support.stack import Gateway, Simulator, create_key, served_by, start_gateway, start_sim
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until

T = TypeVar("T")

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TIMEOUTS = {"connect_s": 5.0, "first_token_s": 30.0, "between_tokens_s": 2.0, "heartbeat_s": 30.0, "total_s": 50.0}
FAILOVER = {"spread_s": 0.05}
SPLIT = "Tell me of the sea 3"  # answered with characters in several tokens
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}

BREAKS = [
    "abort@7",
    "close@7",
    "end@7",
    "error@7",
    "error@7:nodone",
    "engine@7",
    "shutdown@7",
    "stall@7",
]


@dataclass
class Fleet:
    sims: list[Simulator]
    gateway: Gateway
    key: str
    undisturbed: dict[str, Streamed] = field(default_factory=dict)
    turn: int = 0

    def post(self, path: str, body: dict[str, Any], *, wish: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}"}
        if wish is not None:
            headers["x-cloudach-failover"] = wish
        return httpx.post(self.gateway.url + path, headers=headers, json=body, timeout=60)

    def stream(self, path: str, body: dict[str, Any], *, wish: str | None = None) -> Streamed:
        answer = self.post(path, {**body, "stream": True}, wish=wish)
        assert answer.status_code == 200, answer.text
        self.last_id = answer.headers["x-request-id"]
        return Streamed(answer.content)

    def plain(self, path: str, body: dict[str, Any]) -> Streamed:
        """The same without a fault, asked once."""
        name = json.dumps([path, body])
        if name not in self.undisturbed:
            self.reset()
            self.undisturbed[name] = self.stream(path, body)
            assert self.undisturbed[name].done
        self.reset()
        return self.undisturbed[name]

    def reset(self) -> None:
        for sim in self.sims:
            sim.reset()

    def arm(self, fault: str, times: int | None = 1) -> None:
        """Once at each engine: each of them breaks off, until the last."""
        for sim in self.sims:
            sim.arm(fault, times)

    def wake(self) -> int:
        return sum(sim.wake() for sim in self.sims)

    def broken(self, fault: str, ask: Callable[[], T]) -> T:
        """`ask` when the first engine that was asked broke off, and no other: which one that is, is the balancer's."""
        self.turn = (self.turn + 1) % len(self.sims)  # the one that failed last is not asked first
        sim = self.sims[self.turn]
        for _ in range(100):
            self.reset()
            sim.arm(fault)
            answer = ask()
            if not httpx.get(f"{sim.url}/sim/faults").json()["data"]:
                return answer
        raise AssertionError("it was never asked")

    def asked(self) -> int:
        """Requests that engines were asked since the last reset."""
        return sum(sim.stats()["requests_total"] for sim in self.sims)

    def logged(self, request_id: str | None = None) -> dict[str, Any]:
        wanted = request_id or self.last_id
        deadline = time.monotonic() + 30
        while True:
            for entry in reversed(self.gateway.requests):
                if entry["request_id"] == wanted:
                    return entry
            assert time.monotonic() < deadline, f"no log line of {wanted}"
            time.sleep(0.01)

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.base_url, api_key=self.key, max_retries=0)


@contextmanager
def fleet_of(sims: Sequence[Simulator], **config: Any) -> Iterator[Fleet]:
    upstreams = [sim.url for sim in sims]
    model = {**served_by(), "upstreams": upstreams, **config.pop("model", {})}
    settings = {
        "models": [model],
        "timeouts": {**TIMEOUTS, **config.pop("timeouts", {})},
        "failover": {**FAILOVER, **config.pop("failover", {})},
        **config,
    }
    with start_gateway(settings) as gateway:
        yield Fleet(list(sims), gateway, create_key(gateway))


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Simulator]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start_sim(rate=300, model="sim", max_model_len=2000)) for _ in range(4)]


@pytest.fixture(scope="module")
def two_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines[:2]) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def three_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines[:3]) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def four_engines(engines: list[Simulator]) -> Iterator[Fleet]:
    with fleet_of(engines) as fleet:
        yield fleet


@pytest.fixture
def two(two_engines: Fleet) -> Fleet:
    two_engines.reset()
    return two_engines


@pytest.fixture
def three(three_engines: Fleet) -> Fleet:
    three_engines.reset()
    return three_engines


@pytest.fixture
def four(four_engines: Fleet) -> Fleet:
    four_engines.reset()
    return four_engines


def asking(path: str, text: str = SPLIT, **fields: Any) -> dict[str, Any]:
    if path == CHAT:
        return chat(text, **fields)
    return {"model": "sim", "prompt": text, **fields}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("fault", BREAKS)
def test_each_kind_of_break(two: Fleet, fault: str, path: str) -> None:
    body = asking(path, max_tokens=40, ignore_eos=True)
    expected = two.plain(path, body)
    got = two.broken(fault, lambda: two.stream(path, body))
    assert got.error is None
    assert got.told() == expected.told()
    assert len(got.told()["roles"]) == (path == CHAT)
    assert got.comments == 0
    assert two.asked() == 2
    entry = two.logged()
    assert (entry["outcome"], entry["status"], entry["completion_tokens"]) == ("finished", 200, 40)
    (failover,) = entry["failovers"]
    assert failover["after_tokens"] <= 7
    assert any(sim.url in failover["cause"] for sim in two.sims)
    assert "code" not in entry
    assert "retries" not in entry


@pytest.mark.parametrize("fault", BREAKS)
def test_whole_answers(two: Fleet, fault: str) -> None:
    body = chat(SPLIT, max_tokens=40, ignore_eos=True, logprobs=True)
    two.reset()
    expected = two.post(CHAT, body).json()
    answer = two.broken(fault, lambda: two.post(CHAT, body))
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert got["choices"] == expected["choices"]
    assert got["usage"] == {
        **expected["usage"],
        **{name: got["usage"][name] for name in got["usage"] if "details" in name},
    }
    assert two.asked() == 2
    assert len(two.logged(answer.headers["x-request-id"])["failovers"]) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_the_official_sdk_sees_nothing(two: Fleet, stream: bool) -> None:
    body: dict[str, Any] = chat(SPLIT, max_tokens=40, temperature=0)

    def ask(sdk: openai.OpenAI) -> tuple[str, int]:
        if not stream:
            whole = sdk.chat.completions.create(**body)
            return whole.choices[0].message.content, whole.usage.completion_tokens
        chunks = list(sdk.chat.completions.create(**body, stream=True))
        assert [chunk.choices[0].delta.role for chunk in chunks].count("assistant") == 1
        assert len({chunk.id for chunk in chunks}) == 1
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].usage.completion_tokens

    with two.sdk() as sdk:
        expected = ask(sdk)
        assert two.broken("end@11", lambda: ask(sdk)) == expected


def test_the_helper_of_the_sdk(two: Fleet) -> None:
    body: dict[str, Any] = chat("Tell me 0", temperature=0)  # it takes an answer that was cut short for an error

    def ask() -> str:
        with two.sdk() as sdk, sdk.chat.completions.stream(**body) as stream:
            return stream.get_final_completion().choices[0].message.content or ""

    expected = ask()
    assert two.broken("close@9", ask) == expected


def test_an_engine_that_is_killed() -> None:
    """SIGKILL: in the middle of streams, of whole answers, and of one that has not begun."""
    with (
        start_sim(rate=20, model="sim", port=free_port()) as one,
        start_sim(rate=20, model="sim") as two,
        fleet_of([one, two], failover={"spread_s": 0.25}) as fleet,
    ):
        paths = [CHAT, COMPLETIONS]
        bodies = [(paths[n % 2], asking(paths[n % 2], f"Number {n}", max_tokens=120)) for n in range(12)]
        for sim in (one, two):
            sim.configure(rate=1000)
        expected = [fleet.plain(*body) for body in bodies]
        for sim in (one, two):
            sim.configure(rate=20)
        got: dict[int, Streamed] = {}

        def read(number: int) -> None:
            got[number] = fleet.stream(*bodies[number])

        readers = [threading.Thread(target=read, args=(number,)) for number in range(12)]
        whole: list[httpx.Response] = []
        readers += [threading.Thread(target=lambda: whole.append(fleet.post(*bodies[0]))) for _ in range(3)]
        for reader in readers:
            reader.start()
        until(lambda: one.stats()["requests_total"] + two.stats()["requests_total"] == 15)
        until(lambda: one.stats()["generated_tokens_total"] > 100)
        struck = one.stats()["running"]
        one.kill()
        for reader in readers:
            reader.join(30)
        assert [got[number].told() for number in range(12)] == [each.told() for each in expected]
        assert [answer.json()["choices"][0]["message"]["content"] for answer in whole] == [expected[0].text] * 3
        until(lambda: len(fleet.gateway.requests) == 12 + 15)
        entries = fleet.gateway.requests[-15:]
        assert struck - 1 <= sum(len(entry.get("failovers", ())) for entry in entries) <= struck
        assert {entry["outcome"] for entry in entries} == {"finished"}


MATRIX: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": (CHAT, {"temperature": 0, "max_tokens": 50}),
    "max_tokens of one": (CHAT, {"max_tokens": 13}),
    "no limit": (CHAT, {"temperature": 0}),
    "min_tokens": (CHAT, {"min_tokens": 60, "max_tokens": 80}),
    "stop token": (COMPLETIONS, {"stop_token_ids": [46], "min_tokens": 20, "max_tokens": 100, "temperature": 0}),
    "stop string": (CHAT, {"stop": ["STOP"], "max_tokens": 60, "temperature": 0}),
    "stop string kept": (COMPLETIONS, {"stop": ["STOP"], "include_stop_str_in_output": True, "max_tokens": 60}),
    "logprobs": (CHAT, {"logprobs": True, "temperature": 0, "max_tokens": 40}),
    "completion logprobs": (COMPLETIONS, {"logprobs": 2, "temperature": 0, "max_tokens": 40}),
    "token ids": (CHAT, {"return_token_ids": True, "temperature": 0, "max_tokens": 40}),
    "completion token ids": (COMPLETIONS, {"return_token_ids": True, "temperature": 0, "max_tokens": 40}),
    "usage chunk": (CHAT, {"stream_options": {"include_usage": True}, "max_tokens": 40}),
    "completion usage chunk": (COMPLETIONS, {"stream_options": {"include_usage": True}, "max_tokens": 40}),
    "no usage": (CHAT, {"stream_options": {"include_usage": False}, "max_tokens": 40}),
    "usage on each": (
        CHAT,
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}, "temperature": 0, "max_tokens": 40},
    ),
    "16 by default": (COMPLETIONS, {"temperature": 0}),
}


@pytest.mark.parametrize("at", [1, 4, 12])
@pytest.mark.parametrize("name", MATRIX)
def test_what_requests_ask_for(two: Fleet, name: str, at: int) -> None:
    path, fields = MATRIX[name]
    body = asking(path, **fields)
    if "stop" in fields:  # a part of the answer, in its middle, that begins before the cut
        text = two.plain(path, {key: value for key, value in body.items() if key != "stop"}).text
        before = two.plain(path, asking(path, max_tokens=max(1, at), ignore_eos=True)).text
        start = max(0, len(before) - 3)
        body["stop"] = [text[start : start + 9]]
    expected = two.plain(path, body)
    got = two.broken(f"end@{at}", lambda: two.stream(path, body))
    assert got.error is None
    assert got.told() == expected.told()
    if name == "usage on each":
        counts = [chunk["usage"]["completion_tokens"] for chunk in got.chunks]
        assert counts == sorted(counts)
    if two.asked() > 1:  # a stop string may have ended it before
        assert len(two.logged()["failovers"]) == 1
    assert two.logged()["completion_tokens"] == (expected.usage or two.logged())["completion_tokens"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_two_and_three_breaks_in_one_stream(three: Fleet, path: str) -> None:
    body = asking(path, max_tokens=80, ignore_eos=True, logprobs=True if path == CHAT else 1, temperature=0)
    expected = three.plain(path, body)
    for breaks in (2, 3):
        three.reset()
        for sim, fault in zip(three.sims[:breaks], ["end@10", "abort@11", "error@12"], strict=False):
            sim.arm(fault)
        if breaks == 2:  # whichever engine is asked last must not be the one that would not break
            three.sims[2].arm("close@13")
        got = three.stream(path, body)
        assert got.told() == expected.told()
        failovers = three.logged()["failovers"]
        assert len(failovers) == three.asked() - 1
        assert len(failovers) == 3
        assert [one["after_tokens"] for one in failovers] == sorted(one["after_tokens"] for one in failovers)
        assert three.logged()["completion_tokens"] == 80


def test_time_with_an_engine_is_no_time_without_one(engines: list[Simulator]) -> None:
    """The budget counts from each break: a stream may break off every second for minutes."""
    with fleet_of(engines[:3], failover={"budget_s": 2.0, "spread_s": 0.05}) as fleet:
        body = chat(SPLIT, max_tokens=44, ignore_eos=True)
        expected = fleet.plain(CHAT, body)
        for sim in engines:
            sim.configure(rate=5)
        fleet.arm("end@12")  # 2.2 s
        got = fleet.stream(CHAT, body)
        for sim in engines:
            sim.configure(rate=300)
        assert got.told() == expected.told()
        assert len(fleet.logged()["failovers"]) == 3


USAGES: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("fault", ["end", "abort", "error:nodone", "stall"])
def test_a_break_behind_the_last_token(two: Fleet, path: str, usage: dict[str, Any], fault: str) -> None:
    """Usage and [DONE] are missing, or the last chunk too: nothing is generated, or nothing that was not."""
    body = asking(path, max_tokens=9, ignore_eos=True, **usage)
    expected = two.plain(path, body)
    name, _, argument = fault.partition(":")
    got = two.broken(f"{name}@9" + (f":{argument}" if argument else ""), lambda: two.stream(path, body))
    assert got.error is None
    assert got.told() == expected.told()
    assert two.logged()["completion_tokens"] == 9
    assert two.logged()["outcome"] == "finished"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("fault", ["end@0", "abort@0", "error@0", "engine@0", "refuse", "http:503", "http:500"])
def test_a_break_before_the_first_token(two: Fleet, path: str, fault: str) -> None:
    body = asking(path, max_tokens=9, ignore_eos=True, n=2, seed=4, temperature=1)  # could not be continued
    expected = two.plain(path, body)
    got = two.broken(fault, lambda: two.stream(path, body))
    assert got.told() == expected.told()
    entry = two.logged()
    assert "failovers" not in entry
    # A connection that had been used may just have been closed: then the same engine is asked again.
    assert len(entry.get("retries", ())) == 1 or (fault == "refuse" and "retries" not in entry)


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 2}, {"tools": [TOOL], "tool_choice": "required"}, {"response_format": {"type": "json_object"}}],
)
def test_a_break_behind_the_role(engines: list[Simulator], fields: dict[str, Any]) -> None:
    """The client has nothing of the answer: it begins anew, whatever it is."""
    body = chat(SPLIT, max_tokens=30, **fields)
    asked = {**body, "stream": True, "return_token_ids": True, "stream_options": {"include_usage": True}}
    engines[0].reset()
    with httpx.stream("POST", engines[0].url + CHAT, json=asked) as answer:
        raw = answer.extensions["network_stream"].get_extra_info("socket")
        assert raw is not None
        role = next(answer.iter_raw()).split(b"\n\n")[0] + b"\n\n"
    head = sum(len(name) + len(value) + 4 for name, value in answer.headers.raw) + len(b"HTTP/1.1 200 OK\r\n\r\n")
    assert b'"role"' in role
    cut = head + len(b"%x\r\n" % len(role)) + len(role) + 2
    with TcpProxy(engines[0].url, resets=[cut]) as proxy:
        one = Simulator.__new__(Simulator)
        one.url = proxy.url
        with fleet_of([one]) as fleet:
            fleet.sims = [engines[0]]
            got = fleet.stream(CHAT, body)
            assert proxy.connections >= 2
            expected = fleet.stream(CHAT, body)
            drop = ("texts",) if "tools" in fields else ()
            assert {k: v for k, v in got.told().items() if k not in drop} == {
                k: v for k, v in expected.told().items() if k not in drop
            }
            assert len(got.told()["roles"]) == fields.get("n", 1)


@pytest.mark.parametrize("wish", ["off", "OFF"])
def test_a_request_that_wants_none(two: Fleet, wish: str) -> None:
    got = two.broken("end@7", lambda: two.stream(CHAT, chat(SPLIT, max_tokens=40), wish=wish))
    assert got.error is not None
    assert (got.error["type"], got.error["code"]) == ("server_error", "upstream_error")
    assert not got.done
    entry = two.logged()
    assert (entry["outcome"], entry["completion_tokens"], two.asked()) == ("failed", 7, 1)
    whole = two.broken("end@7", lambda: two.post(CHAT, chat(SPLIT, max_tokens=40), wish=wish))
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "upstream_error")


def test_a_wish_that_is_not_known(two: Fleet) -> None:
    answer = two.post(CHAT, chat(stream=True), wish="maybe")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-cloudach-failover"


@pytest.mark.parametrize("usage", USAGES)
def test_a_request_that_wants_to_know(two: Fleet, usage: dict[str, Any]) -> None:
    body = chat(SPLIT, max_tokens=40, **usage)
    for wish in ("report", "on", None):
        got = two.broken("end@9", partial(two.stream, CHAT, body, wish=wish))
        named = [chunk for chunk in got.chunks if "cloudach" in chunk]
        if wish != "report":
            assert named == []
            continue
        (last,) = named
        assert last["choices"][0]["finish_reason"] is not None
        (failover,) = last["cloudach"]["failovers"]
        assert sorted(failover) == ["after_tokens", "took_ms"]
        assert 1 <= failover["after_tokens"] <= 9
        assert failover["took_ms"] > 0
    two.reset()
    assert not any("cloudach" in chunk for chunk in two.stream(CHAT, body, wish="report").chunks), "there was none"


def test_switched_off(engines: list[Simulator]) -> None:
    with fleet_of(engines[:2], failover={"enabled": False}) as fleet:
        got = fleet.broken("end@7", lambda: fleet.stream(CHAT, chat(SPLIT, max_tokens=40)))
        assert got.error is not None
        assert fleet.asked() == 1
        got = fleet.broken("refuse", lambda: fleet.stream(CHAT, chat(SPLIT, max_tokens=4)))
        assert got.done, "what has not begun is no failover"


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "seeded sampling": {"seed": 3, "temperature": 1},
    "presence penalty": {"presence_penalty": 0.5},
    "frequency penalty": {"frequency_penalty": 0.5},
    "several choices": {"n": 2},
    "guided decoding": {"response_format": {"type": "json_object"}},
    "tool calls": {"tools": [TOOL], "tool_choice": "required"},
    "field x_unheard_of": {"x_unheard_of": 1},
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_what_cannot_be_continued(two: Fleet, reason: str) -> None:
    body = chat(SPLIT, max_tokens=40, min_tokens=20, **IMPOSSIBLE[reason])
    at = 19 if reason == "tool calls" else 6  # until its name is known, a call is nothing that was sent
    got = two.broken(f"end@{at}", lambda: two.stream(CHAT, body))
    assert got.error is not None
    assert got.error["code"] == "upstream_error"
    assert reason not in json.dumps(got.error)
    assert got.chunks
    entry = two.logged()
    assert f"not continued: {reason}" in entry["cause"]
    assert (entry["outcome"], entry["code"], two.asked()) == ("failed", "upstream_error", 1)


def test_the_official_sdk_raises_what_cannot_be_continued(two: Fleet) -> None:
    body: dict[str, Any] = chat(SPLIT, max_tokens=40, presence_penalty=0.5, extra_body={"min_tokens": 30})

    def ask() -> str:
        try:
            with two.sdk() as sdk:
                return f"{len(list(sdk.chat.completions.create(**body, stream=True)))} chunks"
        except openai.APIError as error:
            return f"{type(error).__name__} {error.code}"

    assert two.broken("end@19", ask) == "APIError upstream_error"


WHOLE_BREAKS = [(fault, reason) for fault in ("end@4", "abort@4", "error@4:nodone") for reason in IMPOSSIBLE]


@pytest.mark.parametrize(("fault", "reason"), WHOLE_BREAKS)
def test_whole_answers_begin_anew(two: Fleet, reason: str, fault: str) -> None:
    body = chat(SPLIT, max_tokens=60, **IMPOSSIBLE[reason])
    two.reset()
    expected = two.post(CHAT, body).json()
    answer = two.broken(fault, lambda: two.post(CHAT, body))
    assert answer.status_code == 200, answer.text
    got = answer.json()
    if reason == "tool calls":
        calls = [choice["message"].pop("tool_calls") for whole in (got, expected) for choice in whole["choices"]]
        assert [c["function"] for c in calls[0]] == [c["function"] for c in calls[1]]
    assert got["choices"] == expected["choices"]
    assert got["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert two.logged(answer.headers["x-request-id"])["completion_tokens"] == expected["usage"]["completion_tokens"]
    assert two.asked() == 2


def test_no_engine_is_left() -> None:
    """The client hears heart-beats while one is sought, then the error frame; a whole answer gets its status."""
    with start_sim(rate=60, model="sim") as one, start_sim(rate=60, model="sim") as two:
        config = {"timeouts": {"heartbeat_s": 0.4}, "failover": {"budget_s": 3.0}}
        with fleet_of([one, two], **config) as fleet:
            got: list[Streamed] = []
            whole: list[httpx.Response] = []
            body = chat(max_tokens=900, ignore_eos=True)
            readers = [
                threading.Thread(target=lambda: got.append(fleet.stream(CHAT, body))),
                threading.Thread(target=lambda: whole.append(fleet.post(CHAT, body))),
            ]
            for reader in readers:
                reader.start()
            until(lambda: one.stats()["running"] + two.stats()["running"] == 2)
            two.kill()
            # Both have got on at the one that is left: its end is the first loss of each, and not two of a suspect.
            until(lambda: _begun(one, streams=2, tokens=20))
            killed = time.monotonic()
            one.kill()
            for reader in readers:
                reader.join(40)
            waited_s = time.monotonic() - killed
            assert got[0].error is not None
            assert got[0].error["code"] == "upstream_error"
            assert waited_s >= 0.95 * 3.0  # the last twentieth is not begun
            assert 3 <= got[0].comments <= waited_s / 0.4  # 7 where a machine has the time
            assert (whole[0].status_code, whole[0].json()["error"]["code"]) == (502, "upstream_error")
            until(lambda: len(fleet.gateway.requests) == 2)
            for entry in fleet.gateway.requests:
                assert entry["cause"].endswith("given up: no time is left")
                assert (entry["outcome"], entry["code"]) == ("failed", "upstream_error")
                assert entry["completion_tokens"] > 10


def test_attempts_are_bounded(engines: list[Simulator]) -> None:
    config = {"timeouts": {"first_token_s": 2.0}, "failover": {"attempts": 3, "budget_s": 40}}
    with fleet_of(engines[:3], **config) as fleet:
        fleet.reset()
        for sim in fleet.sims:
            sim.arm("shutdown@9")
            sim.arm("stall@0", None)
        got = fleet.stream(CHAT, chat(SPLIT, max_tokens=40, ignore_eos=True))
        assert got.error is not None
        entry = fleet.logged()
        assert entry["cause"].endswith("given up: no attempt is left")
        assert fleet.asked() == 1 + len(entry.get("failovers", ())) + 3


def test_an_engine_that_hangs_is_passed_by(engines: list[Simulator]) -> None:
    """It takes the request and never says a word of the answer; another one does."""
    with fleet_of(engines[:3], timeouts={"first_token_s": 2.0}) as fleet:
        body = chat(SPLIT, max_tokens=40)
        expected = fleet.plain(CHAT, body)
        for sim in fleet.sims:
            sim.arm("end@9")
            sim.arm("stall@0")
        # Whichever comes first breaks; then an engine is told to hang until one is left that does not.
        got = fleet.stream(CHAT, body)
        assert got.error is None, fleet.logged()
        assert got.told() == expected.told()


def user_fault(sims: Sequence[Simulator], fault: str, user: str) -> None:
    for sim in sims:
        httpx.post(f"{sim.url}/sim/faults", json={"fault": fault, "times": None, "user": user}).raise_for_status()


def hits(sims: Sequence[Simulator], fault: str) -> int:
    return sum(request["fault"] == fault.partition("@")[0] for sim in sims for request in sim.requests())


@pytest.mark.parametrize("fault", ["abort@0", "engine@0", "abort@3", "error@3:nodone", "engine@3", "end@1"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_ends_engines_is_stopped_after_two(three: Fleet, fault: str, stream: bool) -> None:
    """The fault goes where the request goes."""
    time.sleep(1.1)  # what died under another test is not the same death
    user_fault(three.sims, fault, "killer")
    body = chat("Kill", max_tokens=40, ignore_eos=True, user="killer", stream=stream)
    answer = three.post(CHAT, body)
    if stream and not fault.endswith("@0"):
        assert answer.status_code == 200
        assert Streamed(answer.content).error is not None
    else:
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_error"
        assert answer.headers["x-should-retry"] == "false", "the SDK would send it again"
    assert hits(three.sims, fault) == 2
    entry = three.logged(answer.headers["x-request-id"])
    assert entry["cause"].endswith("given up: the request ended two engines")


@pytest.mark.parametrize("fault", ["engine@0", "engine@3"])
def test_others_go_on_when_a_request_ends_their_engines(four: Fleet, fault: str) -> None:
    bodies = [chat(f"Innocent {n}", max_tokens=300, ignore_eos=True) for n in range(9)]
    for sim in four.sims:
        sim.configure(rate=0)
    expected = [four.plain(CHAT, body) for body in bodies]
    user_fault(four.sims, fault, "killer")
    for sim in four.sims:
        sim.configure(rate=60)
    got: dict[int, Streamed] = {}

    def read(number: int) -> None:
        got[number] = four.stream(CHAT, bodies[number])

    readers = [threading.Thread(target=read, args=(number,)) for number in range(9)]
    for reader in readers:
        reader.start()
    until(
        lambda: (
            sum(sim.stats()["running"] for sim in four.sims) == 9
            and all(_begun(sim, streams=0, tokens=15) for sim in four.sims)
        )
    )
    killed = four.post(CHAT, chat("Kill", max_tokens=40, ignore_eos=True, user="killer", stream=True))
    for reader in readers:
        reader.join(40)
    for sim in four.sims:
        sim.configure(rate=300)
    assert killed.status_code == 502 or Streamed(killed.content).error is not None
    assert 2 <= hits(four.sims, fault) <= 3
    assert [got[number].error for number in range(9)] == [None] * 9
    assert [got[number].told() for number in range(9)] == [each.told() for each in expected]


def test_who_is_lost_with_others_is_not_taken_for_the_cause(three: Fleet) -> None:
    """Two engines end under the same streams before these have got far anywhere."""
    bodies = [chat(f"Unlucky {n}", max_tokens=60, ignore_eos=True) for n in range(6)]
    expected = [three.plain(CHAT, body) for body in bodies]
    for sim in three.sims:
        sim.configure(rate=8)
    got: dict[int, Streamed] = {}

    def read(number: int) -> None:
        got[number] = three.stream(CHAT, bodies[number])

    readers = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for reader in readers:
        reader.start()
    # Two tokens each, twice.
    for sim in three.sims[:2]:
        until(partial(_begun, sim, streams=2))
        sim.strike("engine")
    for sim in three.sims:
        sim.configure(rate=200)
    for reader in readers:
        reader.join(50)
    assert [got[number].error for number in range(6)] == [None] * 6, [
        e.get("cause") for e in three.gateway.requests[-6:]
    ]
    assert [got[number].told() for number in range(6)] == [each.told() for each in expected]


def _begun(sim: Simulator, *, streams: int = 1, tokens: int = 2) -> bool:
    running = [request for request in sim.requests() if request["state"] == "running"]
    return len(running) >= streams and all(request["sent_tokens"] >= tokens for request in running)


def test_an_engine_that_was_dead_before_is_no_victim(three: Fleet) -> None:
    """vLLM's HTTP server outlives its engine, has nothing to do, and is asked first."""
    body = chat(SPLIT, max_tokens=80, ignore_eos=True)
    expected = three.plain(CHAT, body)
    for sim in three.sims:
        sim.configure(rate=10)
    results: list[Streamed] = []
    readers = [threading.Thread(target=lambda: results.append(three.stream(CHAT, body))) for _ in range(2)]
    for reader in readers:
        reader.start()
    until(lambda: sorted(sim.stats()["running"] for sim in three.sims) == [0, 1, 1])
    idle = next(sim for sim in three.sims if sim.stats()["running"] == 0)
    busy = next(sim for sim in three.sims if sim.stats()["running"] == 1)
    httpx.post(f"{idle.url}{CHAT}", json={**body, "stream": True}, headers={"x-sim-fault": "engine@1"})
    until(lambda: _begun(busy))
    assert busy.strike("end") == 1
    for sim in three.sims:
        sim.configure(rate=300)
    for reader in readers:
        reader.join(30)
    assert [one.error for one in results] == [None, None]
    assert [one.told() for one in results] == [expected.told()] * 2
    assert idle.stats()["refused_total"] >= 1, "it was asked"


def test_one_address_for_all_engines(engines: list[Simulator]) -> None:
    """HAProxy stands before them: the same URL is asked again."""
    with fleet_of(engines[:1]) as fleet:
        for path in (CHAT, COMPLETIONS):
            body = asking(path, max_tokens=40)
            expected = fleet.plain(path, body)
            for fault in BREAKS:
                if fault.startswith("engine"):
                    continue  # there is no other one behind it
                fleet.reset()
                fleet.sims[0].arm(fault)
                assert fleet.stream(path, body).told() == expected.told(), fault
                assert len(fleet.logged()["failovers"]) == 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_the_only_engine_is_replaced(path: str) -> None:
    """Its successor comes to the same address. How long an answer may become was asked while there was an engine."""
    port = free_port()
    body = asking(path, temperature=0, **({} if path == CHAT else {"max_tokens": 120}))
    got: list[Streamed] = []
    with start_sim(rate=1000, model="sim", port=port) as one, fleet_of([one]) as fleet:
        expected = fleet.plain(path, body)
        one.configure(rate=20)
        reader = threading.Thread(target=lambda: got.append(fleet.stream(path, body)))
        reader.start()
        until(partial(_begun, one, tokens=20))
        one.kill()
        time.sleep(0.5)
        with start_sim(rate=1000, model="sim", port=port):
            reader.join(30)
        assert got[0].error is None, fleet.gateway.requests[-1]["cause"]
        assert got[0].told() == expected.told()
        assert len(fleet.logged()["failovers"]) == 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_an_answer_that_began_anew_and_was_not_waited_for(two: Fleet, path: str) -> None:
    """The prompt is paid for once, and the answer as far as it came the second time."""
    for sim in two.sims:
        sim.configure(rate=10)  # a tick is longer than it takes until all know that the client has left
    prompt = two.stream(path, asking(path, max_tokens=1)).usage
    assert prompt is not None
    body = asking(path, max_tokens=900, ignore_eos=True, presence_penalty=0.5)

    async def leave() -> None:
        """Once the answer has begun anew, or will not break."""

        def far_enough() -> bool:
            stats = [sim.stats() for sim in two.sims]
            broke = sum(of["failed_total"] for of in stats) == 1
            return sum(of["generated_tokens_total"] for of in stats) >= (20 + 8 if broke else 25)

        async with httpx.AsyncClient(timeout=60) as client:
            headers = {"authorization": f"Bearer {two.key}"}
            asked = asyncio.create_task(client.post(two.gateway.url + path, headers=headers, json=body))
            await asyncio.to_thread(until, far_enough)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            assert asked.cancelled()

    def ask() -> int:
        """The number of its entry in the log."""
        two.logged()
        number = len(two.gateway.requests)
        asyncio.run(leave())
        until(lambda: len(two.gateway.requests) > number)
        return number

    number = two.broken("end@20", ask)
    entry = two.gateway.requests[number]
    assert entry["outcome"] == "cancelled"
    until(lambda: sum(sim.stats()["running"] for sim in two.sims) == 0)
    generated = sum(sim.stats()["generated_tokens_total"] for sim in two.sims)
    for sim in two.sims:
        sim.configure(rate=300)
    assert entry["prompt_tokens"] == prompt["prompt_tokens"]
    assert generated - 20 - 5 <= entry["completion_tokens"] <= generated - 20


def test_heartbeats_while_another_engine_begins(engines: list[Simulator]) -> None:
    with fleet_of(engines[:2], timeouts={"heartbeat_s": 0.4}) as fleet:
        body = chat(SPLIT, max_tokens=40)
        expected = fleet.plain(CHAT, body)
        for sim in fleet.sims:
            sim.arm("end@9")
            sim.arm("stall@0")
        began, read, woken = time.monotonic(), b"", 0
        headers = {"authorization": f"Bearer {fleet.key}"}
        url = fleet.gateway.url + CHAT
        with httpx.stream("POST", url, headers=headers, json={**body, "stream": True}, timeout=30) as answer:
            fleet.last_id = answer.headers["x-request-id"]
            # One engine breaks off, the other too, and then the first takes its time.
            for part in answer.iter_raw():
                read += part
                if not woken and read.count(b": keep-alive\n\n") >= 3:
                    woken = fleet.wake()
        got = Streamed(read)
        assert got.told() == expected.told()
        assert 3 <= got.comments <= (time.monotonic() - began) / 0.4
        assert fleet.logged()["heartbeats"] == got.comments


def test_log_and_metrics_name_it(engines: list[Simulator]) -> None:
    port = free_port()
    with fleet_of(engines[:2], listen={"metrics_port": port}) as fleet:
        for fault, wish in (("refuse", None), ("end@9", None), ("end@9", "report"), ("end@9", "off")):
            fleet.broken(fault, partial(fleet.stream, CHAT, chat(SPLIT, max_tokens=40), wish=wish))
        fleet.logged()
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
            for sample in family.samples
        }
        assert samples["cloudach_failovers_total", "sim"] == 2
        assert samples["cloudach_failover_duration_seconds_count", "sim"] == 2
        assert samples["cloudach_upstream_retries_total", "sim"] == 1
        causes = [one["cause"] for entry in fleet.gateway.requests for one in entry.get("failovers", ())]
        assert [cause.partition(": ")[2] for cause in causes] == ["the stream ended without [DONE]"] * 2


def test_a_drain_ends_the_search_for_an_engine() -> None:
    with (
        start_sim(rate=60, model="sim", port=free_port()) as one,
        fleet_of([one], timeouts={"drain_s": 1.0}, failover={"budget_s": 30.0}) as fleet,
    ):
        got: list[Streamed] = []
        reader = threading.Thread(target=lambda: got.append(fleet.stream(CHAT, chat(max_tokens=900, ignore_eos=True))))
        reader.start()
        until(lambda: one.stats()["generated_tokens_total"] > 10)
        one.kill()
        fleet.gateway.process.send_signal(signal.SIGTERM)
        reader.join(40)
        assert fleet.gateway.process.wait(30) == 0
        assert got[0].error is not None
        assert got[0].error["code"] == "server_is_overloaded"
        assert fleet.gateway.requests[-1]["outcome"] == "failed"

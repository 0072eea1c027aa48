"""An engine breaks off in mid-stream: the client's stream is the one it would have been."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import openai
import pytest

from tests.data_plane.conftest import chat
from tests.data_plane.failover.fleet import BREAKS, CHAT, COMPLETIONS, SPLIT, TOOL, USAGES, Fleet, asking, fleet_of
from tests.data_plane.streamed import Streamed
from tests.support.ports import free_port
from tests.support.stack import Simulator, start_sim
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import until


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

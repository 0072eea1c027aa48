"""Clients and operators choose whether streams are continued, and are told of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_plane.conftest import chat
from tests.data_plane.failover.fleet import CHAT, SPLIT, USAGES, Fleet, fleet_of
from tests.support.ports import free_port
from tests.support.stack import Simulator


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

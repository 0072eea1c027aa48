"""The probes of the chart's stores, against a Valkey that has much to do."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis

from tests.support.helm import render
from tests.support.valkey import Valkey, valkey


def answers(server: Valkey, within_s: float) -> bool:
    """PING, as `valkey-cli ping` sends it."""
    with redis.Redis.from_url(server.url, socket_timeout=within_s, retry=None) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def passes(probe: dict[str, Any], server: Valkey) -> bool:
    """As a kubelet would try it."""
    within_s = float(probe["timeoutSeconds"])
    if "exec" in probe:
        return answers(server, within_s)
    assert probe["tcpSocket"]["port"] == "valkey"
    with socket.create_connection(("127.0.0.1", server.port), timeout=within_s):
        return True


@pytest.mark.parametrize("part", ["valkey", "raystore"])
def test_a_busy_valkey_stays_an_endpoint(part: str) -> None:
    """It is the only one: without it every gateway is without Redis, which is worse than a slow one."""
    container = render().container(part)
    with valkey() as server:
        assert passes(container["startupProbe"], server), "once its file is read"
        with server.held():
            assert not answers(server, 0.2)
            assert passes(container["readinessProbe"], server)


@pytest.mark.parametrize("part", ["valkey", "raystore"])
def test_what_does_not_answer_for_minutes_is_started_again(part: str) -> None:
    """By PING, because a Valkey that hangs still takes connections."""
    probe = render().container(part)["livenessProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 180
    with valkey() as server:
        assert passes(probe, server)
        with server.held():
            assert not passes({**probe, "timeoutSeconds": 0.2}, server)

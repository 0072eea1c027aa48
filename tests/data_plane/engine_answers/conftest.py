"""One gateway for the whole folder, which no answer may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_plane.conftest import PATIENT
from tests.data_plane.engine_answers.broken import Broken
from tests.support.raw_engine import RawEngine
from tests.support.stack import create_key, start_gateway


@pytest.fixture(scope="package")
def running() -> Iterator[Broken]:
    with (
        RawEngine() as engine,
        start_gateway(
            {
                "models": [
                    {"id": "vllm", "upstreams": [engine.url], "max_model_len": 4096},
                    {"id": "openai", "upstreams": [engine.url], "dialect": "openai"},
                ],
                "timeouts": PATIENT,
                "failover": {"spread_s": 0.01, "budget_s": 5.0},
            }
        ) as gateway,
    ):
        yield Broken(engine, gateway, create_key(gateway))


@pytest.fixture
def broken(running: Broken) -> Iterator[Broken]:
    yield running
    assert "Traceback" not in running.gateway.output
    assert '"unhandled' not in running.gateway.output

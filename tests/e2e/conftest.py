from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.collector import Collector
from tests.support.inference import Inference, start_vllm

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The receiver of the engine's traces."""
    with Collector() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def vllm(collector: Collector) -> Iterator[Inference]:
    """One real engine for all end-to-end tests, with traces: its start is what takes long."""
    with start_vllm({"id": MODEL}, telemetry={"traces": {"endpoint": collector.url}}) as inference:
        yield inference

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.inference import Inference, start_vllm

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def vllm() -> Iterator[Inference]:
    """One real engine for all end-to-end tests: its start is what takes long."""
    with start_vllm({"id": MODEL}) as inference:
        yield inference

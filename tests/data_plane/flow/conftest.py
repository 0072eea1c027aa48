"""One engine that is as fast as it can be, behind a gateway that is patient with slow readers and one that is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_plane.conftest import Stack
from tests.data_plane.flow.client import CONTEXT, STRICT_S, stack_of, undisturbed
from tests.support.stack import Simulator, start_sim


@pytest.fixture(scope="package")
def flat() -> Iterator[Simulator]:
    with start_sim(flat=True, model="sim", max_model_len=CONTEXT) as sim:
        yield sim


@pytest.fixture(scope="package")
def patient_stack(flat: Simulator) -> Iterator[Stack]:
    with stack_of(flat, slow_reader_s=60.0) as stack:
        yield stack


@pytest.fixture(scope="package")
def strict_stack(flat: Simulator) -> Iterator[Stack]:
    with stack_of(flat, slow_reader_s=STRICT_S) as stack:
        yield stack


@pytest.fixture
def patient(patient_stack: Stack) -> Iterator[Stack]:
    yield from undisturbed(patient_stack)


@pytest.fixture
def strict(strict_stack: Stack) -> Iterator[Stack]:
    yield from undisturbed(strict_stack)

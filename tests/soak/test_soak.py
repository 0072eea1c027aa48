"""`make test-soak`: 1,000 streams at once through one gateway process, for MINUTES (5)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support.soak.run import soak

MINUTES = float(os.environ.get("MINUTES", "5"))


@pytest.mark.timeout(MINUTES * 60 + 180)
def test_nothing_grows_and_nothing_is_left(say: Callable[[str], None]) -> None:
    soak(1000, MINUTES * 60, tokens=(20, 120), growth=0.03, idle=True, say=say)

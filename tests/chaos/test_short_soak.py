"""What `make test-soak` does, in short."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.soak.run import soak


def test_nothing_is_left(say: Callable[[str], None]) -> None:
    soak(200, 12, tokens=(20, 40), growth=0.25, idle=False, say=say)

"""Figures that tests have seen come out at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_said: list[str] = []


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A line for whoever runs the tests."""
    return lambda line: _said.append(f"{request.node.name}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _said:
        terminalreporter.section("seen")
        for line in _said:
            terminalreporter.line(line)

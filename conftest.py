"""What a run of the tests leaves out is said once more at the end of `make test`; in CI it is a failure.

`LEFT_OUT` names the file that `make test` gathers it in. `CI=true` is what CI services set.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest


def _left_out(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped, by reason. Workers of pytest-xdist know none, the run all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return Counter()
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reasons = _left_out(session.config)
    if not reasons:
        return
    if os.environ.get("CI", "").lower() in ("1", "true") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if file := os.environ.get("LEFT_OUT"):
        with (session.config.rootpath / file).open("a") as lines:
            lines.writelines(f"{count} tests: {reason}\n" for reason, count in reasons.items())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("skipped") and os.environ.get("CI", "").lower() in ("1", "true"):
        terminalreporter.line("In CI (CI=true) nothing may be left out: this run has failed", red=True, bold=True)

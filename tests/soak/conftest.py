"""Figures that tests have seen come out at the end of the run."""

from tests.support.figures import pytest_terminal_summary, say

__all__ = ["pytest_terminal_summary", "say"]

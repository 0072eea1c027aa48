from tests.chaos.conftest import pytest_terminal_summary, say

__all__ = ["pytest_terminal_summary", "say"]

"""The guide's React hook on the guide's page, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.stack import Gateway, Simulator

from .stacks import Stack

PROMPT = "Hello!"
_PATIENCE_MS = 30_000
_FOREIGN_PATIENCE_MS = 300_000

# site.py serves "page.jsx" with the guide's "useCloudachStream.js", and with the first guide's.
both = pytest.mark.parametrize("path", ["/", "/seed"])

_HYDRATED = "Object.keys(document.querySelector('form')).some((key) => key.startsWith('__reactProps'))"

_RECORD = """() => {
  const log = document.querySelector('[role=log]');
  window.seen = [];
  new MutationObserver(() => window.seen.push(log.textContent))
    .observe(log, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert found is not None, "no Chromium was found: run tests/guide/setup.sh (make test-guide does)"
    arguments = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=found, args=arguments) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, stack: Stack, next_url: str) -> Iterator[Page]:
    with browser.new_context(base_url=next_url) as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS if stack.own is not None else _FOREIGN_PATIENCE_MS)
        yield page


def _ask(page: Page, path: str) -> None:
    page.goto(path)
    page.wait_for_function(_HYDRATED)
    page.get_by_label("Prompt").fill(PROMPT)
    page.evaluate(_RECORD)
    page.get_by_role("button", name="Send").click()


def _await_end(page: Page, stack: Stack) -> list[str]:
    """Every text that the page showed."""
    patience = _PATIENCE_MS if stack.own is not None else _FOREIGN_PATIENCE_MS
    expect(page.get_by_role("log")).not_to_be_empty(timeout=patience)
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=patience)
    seen: list[str] = page.evaluate("window.seen")
    return seen


@both
def test_the_answer_grows_in_the_browser(stack: Stack, page: Page, path: str, tmp_path: Path) -> None:
    _ask(page, path)
    seen = [text for text in _await_end(page, stack) if text]
    page.screenshot(path=tmp_path / "page.png")
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    answer = stack.answer(PROMPT)
    if answer is None:
        assert len(set(seen)) > 2
        return
    assert seen[-1] == answer.text
    if stack.own is not None:
        assert len(set(seen)) >= answer.completion_tokens // 3
    expect(page.locator("form").get_by_role("alert")).to_be_empty()


def test_an_error_in_mid_stream_keeps_the_text_and_frees_the_button(
    stack: Stack, own: tuple[Simulator, Gateway], page: Page
) -> None:
    sim, _ = own
    answer = stack.answer(PROMPT)
    assert answer is not None
    sim.arm("close@20")
    _ask(page, "/")
    _await_end(page, stack)
    shown = page.get_by_role("log").text_content()
    assert shown
    assert answer.text.startswith(shown)
    assert shown != answer.text
    expect(page.locator("form").get_by_role("alert")).not_to_be_empty()

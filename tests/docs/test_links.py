"""The check of links finds what it is there for."""

from pathlib import Path

import pytest

from scripts.check_links import dangling, main, slug

PAGE = """\
# Keys and limits

## What `--expires` means: 90d?

## Twice

## Twice

<a id="by-hand"></a>

| | |
|---|---|
| a [cell](other.md#there) | ![plot](plot.svg) |
"""


def check(root: Path, text: str, name: str = "pages/page.md", folder: str = "pages") -> list[str]:
    (root / folder).mkdir(exist_ok=True)
    (root / folder / "other.md").write_text("Not a heading\n\nThere\n-----\n")
    (root / folder / "plot.svg").write_text("<svg/>")
    file = root / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text)
    return dangling(root, [file])


def test_links_that_lead_somewhere(tmp_path: Path) -> None:
    good = (
        "[a](#keys-and-limits) [b](#what---expires-means-90d) [c](#twice) [d](#twice-1) [e](#by-hand) [f](../pages/)\n"
    )
    assert check(tmp_path, PAGE + good + "[web](https://example.com/none#at-all) <mailto:a@example.com>") == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[x](none.md)", "there is no none.md"),
        ("![x](none.svg)", "there is no none.svg"),
        ("[x][y]\n\n[y]: ../none/", "there is no ../none/"),
        ('<a href="none.md">x</a>', "there is no none.md"),
        ("[x](#twice-2)", "this page has no heading for #twice-2"),
        ("[x](other.md#here)", "other.md has no heading for #here"),
        ("[x](other.md#not-a-heading)", "other.md has no heading for #not-a-heading"),
    ],
)
def test_links_that_lead_nowhere(tmp_path: Path, link: str, said: str) -> None:
    line = len(PAGE.splitlines()) + 3
    assert check(tmp_path, f"{PAGE}\nFirst line of a paragraph,\nthen {link}") == [f"pages/page.md:{line}: {said}"]


def test_code_in_a_page_has_no_links(tmp_path: Path) -> None:
    assert check(tmp_path, "`[x](none.md)`\n\n```md\n[x](none.md)\n```\n") == []


def test_code_that_names_a_page(tmp_path: Path) -> None:
    docs = "docs"  # apart, because the check reads this file too
    text = f'"""See {docs}/other.md#there, {docs}/other.md."""\n# {docs}/none.md\nprint("{docs}/other.md#here")\n'
    assert check(tmp_path, text, "src/module.py", docs) == [
        f"src/module.py:2: there is no {docs}/none.md",
        f"src/module.py:3: {docs}/other.md has no heading for #here",
    ]


def test_fragments_are_githubs() -> None:
    assert slug("What `--expires` means: 90d?") == "what---expires-means-90d"
    assert slug("Node.js: streaming to an HTTP response") == "nodejs-streaming-to-an-http-response"
    assert slug("A_b – c") == "a_b--c"


def test_this_repository_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out

"""Finds links that lead nowhere: between the repository's Markdown files, and from code and templates into docs/.

    python scripts/check_links.py

A link leads somewhere when the file is there and, where it names a heading, the heading too. Addresses on the web are
left alone, because the check needs no network.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
_MENTION = re.compile(r"\b(docs/[\w./-]+\.(?:md|yaml|svg))(?:#([\w-]+))?")
_IN_HTML = re.compile(r"""<(?:a|img)\b[^>]*?\b(?:href|src)=["']([^"']+)""", re.IGNORECASE)
_ANCHOR_IN_HTML = re.compile(r"""<\w+\b[^>]*?\b(?:id|name)=["']([^"']+)""", re.IGNORECASE)
_markdown = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Link:
    """One link as it stands in a file. `line` counts from 1."""

    file: Path
    line: int
    target: str


def links(file: Path) -> Iterator[Link]:
    """Yields the links, images and anchors' references of one Markdown file; code is left out."""
    for line, token in _tokens(file):
        if token.type == "link_open":
            yield Link(file, line, str(token.attrs["href"]))
        elif token.type == "image":
            yield Link(file, line, str(token.attrs["src"]))
        elif token.type in ("html_block", "html_inline"):
            for target in _IN_HTML.findall(token.content):
                yield Link(file, line, target)


def mentions(file: Path) -> Iterator[Link]:
    """Yields what code, a template or a comment says of files under docs/, as seen from the repository's root."""
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        for path, anchor in _MENTION.findall(line):
            yield Link(file, number, f"{path}#{anchor}" if anchor else path)


@cache
def anchors(file: Path) -> frozenset[str]:
    """Returns the fragments that a Markdown file offers, its headings' as GitHub makes them."""
    found: set[str] = set()
    in_heading = False
    for _, token in _tokens(file):
        if token.type in ("html_block", "html_inline"):
            found.update(_ANCHOR_IN_HTML.findall(token.content))
        if token.type == "inline" and in_heading:
            name = plain = slug(_text(token))
            count = 0
            while name in found:
                count += 1
                name = f"{plain}-{count}"
            found.add(name)
        in_heading = token.type == "heading_open"
    return frozenset(found)


def slug(heading: str) -> str:
    """Returns GitHub's fragment of a heading: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def problem(link: Link, base: Path) -> str | None:
    """Says what is wrong with a link, whose target is relative to `base`; None when it leads somewhere."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link.target, re.IGNORECASE):
        return None
    path, _, anchor = link.target.partition("#")
    target = (base / unquote(path)).resolve() if path else link.file
    if not target.exists():
        return f"there is no {path}"
    if anchor and target.suffix == ".md" and unquote(anchor) not in anchors(target):
        return f"{path or 'this page'} has no heading for #{anchor}"
    return None


def dangling(root: Path, files: list[Path]) -> list[str]:
    """Returns a line for each link of `files` that leads nowhere."""
    found = []
    for file in files:
        markdown = file.suffix == ".md"
        for link in links(file) if markdown else mentions(file):
            wrong = problem(link, file.parent if markdown else root)
            if wrong is not None:
                found.append(f"{file.relative_to(root)}:{link.line}: {wrong}")
    return found


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    kinds = {".md", ".py", ".sh", ".yaml", ".tpl", ".txt", ".toml", ".lua", ".json", ".Dockerfile"}
    named = [ROOT / name for name in listed.split("\0") if name]
    files = [file for file in named if file.is_file() and (file.suffix in kinds or file.name == "Makefile")]
    found = dangling(ROOT, files)
    print("\n".join(found) if found else f"Every link of {len(files)} files leads somewhere.")
    return 1 if found else 0


def _tokens(file: Path) -> Iterator[tuple[int, Token]]:
    """Yields every token with the line that it stands on, as near as the parser tells."""
    for token in _markdown.parse(file.read_text()):
        line = (token.map or [0])[0] + 1
        yield line, token
        for child in token.children or ():
            yield line, child
            if child.type in ("softbreak", "hardbreak"):
                line += 1


def _text(heading: Token) -> str:
    return "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))


if __name__ == "__main__":
    sys.exit(main())

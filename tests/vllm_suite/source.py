"""The tests come from vLLM's source distribution, of the version that the engine's environment holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import urljoin

import httpx

from tests.support.processes import ROOT

_WANTED = re.compile(r"^[^/]+/tests/entrypoints/(__init__\.py$|conftest\.py$|openai/.*\.py$)")
_PYPI = "https://pypi.org/simple"
_PATIENCE_S = 120.0


class SourceError(Exception):
    """The tests could not be had; the message says why."""


def fetch(version: str, folder: Path, shim: Path) -> Path:
    """Lays vLLM's tests of its OpenAI server under `folder`, with `shim` in place of their helpers; returns their root.

    A folder that is there already is taken as it is. Raises SourceError.
    """
    root = folder / f"vllm-{version}"
    if not root.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        archive, making = folder / f"vllm-{version}.tar.gz", folder / f".vllm-{version}"
        _download(version, archive)
        shutil.rmtree(making, ignore_errors=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and _WANTED.match(member.name):
                    member.name = member.name.partition("/")[2]
                    tar.extract(member, making, filter="data")
        if not (making / "tests/entrypoints/openai").is_dir():
            raise SourceError(f"vLLM's source distribution {version} holds no tests/entrypoints/openai")
        archive.unlink()
        making.rename(root)
    (root / "tests/__init__.py").write_text("")
    shutil.copy(shim, root / "tests/utils.py")
    return root


def _download(version: str, archive: Path) -> None:
    """From the package index that pip uses: asked by its simple page, because pip would build the package first."""
    page = f"{_index().rstrip('/')}/vllm/"
    try:
        listing = httpx.get(page, timeout=_PATIENCE_S, follow_redirects=True)
        listing.raise_for_status()
        found = re.search(rf'href="([^"]*/vllm-{re.escape(version)}\.tar\.gz)[#"]', listing.text)
        if found is None:
            raise SourceError(f"the package index has no source distribution of vLLM {version}")
        print(f"== downloading vLLM {version}'s source distribution (40 MB, once)", flush=True)
        link = urljoin(str(listing.url), found[1])
        with httpx.stream("GET", link, timeout=_PATIENCE_S, follow_redirects=True) as got:
            got.raise_for_status()
            with archive.open("wb") as file:
                for part in got.iter_bytes():
                    file.write(part)
    except httpx.HTTPError as error:
        raise SourceError(f"the package index did not answer: {error}") from error


def _index() -> str:
    """The index that pip is told of, or PyPI's."""
    if os.environ.get("PIP_INDEX_URL") or not (ROOT / ".tools/bin/pip").exists():
        return os.environ.get("PIP_INDEX_URL") or _PYPI
    asked = subprocess.run(
        [ROOT / ".tools/bin/pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return asked.stdout.strip() or _PYPI

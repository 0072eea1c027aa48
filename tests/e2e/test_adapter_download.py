"""Adapters from the Hugging Face Hub, by its own library; the Hub is a small server that speaks as it does."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.inference import VLLM_PYTHON

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
FILES = {
    "adapter_config.json": b'{"r": 16}',
    "adapter_model.safetensors": b"weights",
    "training/optimizer.pt": b"not wanted",
}


class Hub(ThreadingHTTPServer):
    """`asked`: (path, token). Only `org/sql` is there, for the token `own`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        self.server.asked.append((self.path, token))
        status, found, extra = self._find(token)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(found)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(found)

    def _find(self, token: str) -> tuple[int, bytes, dict[str, str]]:
        if not self.path.startswith(("/api/models/org/sql", "/org/sql/")):
            return 404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        if token != "own":
            return 401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to it is restricted"}
        kind, _, rest = self.path.rpartition("/revision/")
        if kind:
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "org/sql", "sha": COMMITS[rest.partition("?")[0]], "siblings": siblings}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        if "/tree/" in self.path:
            files = [{"type": "file", "path": name, "size": len(text), "oid": name} for name, text in FILES.items()]
            return 200, json.dumps(files).encode(), {"Content-Type": "application/json"}
        commit, _, name = self.path.partition("/resolve/")[2].partition("/")
        return 200, FILES[name], {"ETag": f'"{commit[:4]}{len(name)}"', "X-Repo-Commit": commit}

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(server: Hub, cache: Path, **adapter: str) -> tuple[str, Path | None]:
    """What went wrong, and where it lies."""
    code = (
        "import sys, json; from cloudach_inference.replica.adapters import Adapter, AdapterError, fetch, rank\n"
        "it = Adapter.model_validate_json(sys.argv[1])\n"
        "try: fetch(it); print(json.dumps([str(rank(it)), str(it.path)]))\n"
        "except AdapterError as error: print(json.dumps([str(error), None]))"
    )
    env = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache / "hf"),
        "XDG_CACHE_HOME": str(cache),
        "HF_TOKEN": "of-the-base",
        "ADAPTER_X_HF_TOKEN": "own",
    }
    command = [str(VLLM_PYTHON), "-c", code, json.dumps({"name": "sql", **adapter})]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    said, path = json.loads(done.stdout.splitlines()[-1])
    return said, Path(path) if path else None


def test_with_a_token_of_its_own_and_only_what_is_needed(tmp_path: Path) -> None:
    with hub() as server:
        said, path = fetched(server, tmp_path, repo="org/sql", revision="v2", env_prefix="ADAPTER_X_")
        assert said == "16"
        assert path is not None
        assert {file.name for file in path.iterdir() if file.is_file()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        assert {token for asked, token in server.asked if "/org/sql" in asked} == {"own"}
        assert not [asked for asked, _ in server.asked if "optimizer" in asked]
        assert [asked for asked, _ in server.asked if f"/resolve/{COMMITS['v2']}/" in asked]


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (
            {"repo": "org/other", "env_prefix": "ADAPTER_X_"},
            "LoRA adapter 'sql': org/other: RepositoryNotFoundError: 404",
        ),
        ({"repo": "org/sql"}, "LoRA adapter 'sql': org/sql: GatedRepoError: 401"),
    ],
)
def test_what_the_hub_says_is_told(tmp_path: Path, adapter: dict[str, str], said: str) -> None:
    with hub() as server:
        assert fetched(server, tmp_path, **adapter)[0].startswith(said)

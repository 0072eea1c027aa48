"""vLLM's own media connector, with what every engine is told: it fetches nothing but from domains that are allowed."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest
from cloudach_inference.replica.app import with_defaults

from tests.support.inference import VLLM_PYTHON

_FETCH = """
import json, sys
from vllm.multimodal.media import MediaConnector
from vllm.multimodal.media.image import ImageMediaIO
asked = json.loads(sys.argv[1])
connector = MediaConnector(allowed_media_domains=asked["domains"])
for url in asked["urls"]:
    try:
        connector.load_from_url(url, ImageMediaIO())
        print("fetched", url)
    except Exception as error:
        print("refused", url, type(error).__name__)
"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(302)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_address[1]}/secret")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(server: http.server.HTTPServer, domains: list[str], *urls: str) -> tuple[str, list[str]]:
    """What vLLM says, and the paths that the server was asked for."""
    options = with_defaults({"engine_kwargs": {"allowed_media_domains": domains} if domains else {}})
    kwargs, env = options["engine_kwargs"], options["runtime_env"]["env_vars"]
    port = server.server_address[1]
    asked = {"domains": kwargs.get("allowed_media_domains"), "urls": [url.replace("PORT", str(port)) for url in urls]}
    command = [VLLM_PYTHON, "-c", _FETCH, json.dumps(asked)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=300, env={**os.environ, **env}
    )
    return done.stdout, server.asked  # type: ignore[attr-defined]


def test_without_domains_nothing_is_fetched(server: http.server.HTTPServer) -> None:
    urls = ("http://127.0.0.1:PORT/a", "http://localhost:PORT/b", "http://2130706433:PORT/c", "file:///etc/passwd")
    said, asked = fetched(server, [], *urls)
    assert said.count("refused") == len(urls)
    assert asked == []


def test_a_domain_that_is_allowed_leads_nowhere_else(server: http.server.HTTPServer) -> None:
    said, asked = fetched(server, ["localhost"], "http://localhost:PORT/a", "http://127.0.0.1:PORT/b")
    assert said.count("refused") == 2
    assert asked == ["/a"], "the redirect to /secret is not followed"

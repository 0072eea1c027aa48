"""A pytest plugin for the engine's environment: each of vLLM's tests runs twice, against vLLM and through the gateway.

The environment names where servers are asked for (VLLM_SUITE_CONTROL), the weights' folder (VLLM_SUITE_WEIGHTS) and the
file that gets one JSON line for each test and way (VLLM_SUITE_RESULTS).
"""

from __future__ import annotations

import inspect
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import httpx
import huggingface_hub
import openai
import pytest
import requests
import transformers
import vllm.tokenizers
import vllm.transformers_utils.repo_utils

WAYS = ("direct", "gateway")
WEIGHTS = os.environ["VLLM_SUITE_WEIGHTS"]
VLLM_PATH = Path(__file__).parent
ROCM_EXTRA_ARGS: list[str] = []
_START_S = 900.0

_way = WAYS[0]


class RemoteOpenAIServer:
    """Has the interface of vLLM's own class; it asks for a server, and gives the address for the test's way."""

    ways: ClassVar[dict[str, dict[str, str]]] = {}
    """Those of the server that was asked for last: the root URL and the key, by way."""

    def __init__(self, model: str, args: list[str], *, env_dict: dict[str, str] | None = None, **_: Any) -> None:
        self._asked = json.dumps({"model": model, "args": args, "env": env_dict or {}}).encode()
        self.address()

    def address(self) -> dict[str, str]:
        """Asked for anew each time: one server runs at a time, and a file may hold several of this class."""
        asked = urllib.request.Request(
            os.environ["VLLM_SUITE_CONTROL"], self._asked, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=_START_S) as answer:
                RemoteOpenAIServer.ways = json.load(answer)
        except urllib.error.HTTPError as error:
            pytest.fail(error.read().decode()[-3000:], pytrace=False)
        return self.ways[_way]

    def __enter__(self) -> RemoteOpenAIServer:
        return self

    def __exit__(self, *_: object) -> None:
        """The server goes on, because the next test may want the same one."""

    @property
    def DUMMY_API_KEY(self) -> str:
        return self.address()["key"]

    @property
    def url_root(self) -> str:
        return self.address()["url"]

    def url_for(self, *parts: str) -> str:
        return f"{self.url_root}/{'/'.join(part.strip('/') for part in parts if part)}"

    def get_client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**self._options(options))

    def get_async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        known = {"base_url": self.url_for("v1"), "api_key": self.DUMMY_API_KEY, "max_retries": 0, "timeout": 600}
        return known | options


def multi_gpu_only(*_: Any, **__: Any) -> Any:
    return pytest.mark.skip(reason="needs several GPUs")


requires_fp8 = pytest.mark.skip(reason="needs FP8")


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest) -> str:
    global _way
    _way = request.param
    return _way


def pytest_configure(config: pytest.Config) -> None:
    """Whatever a test loads by a hub's name is the one model that is served, because there is no hub here."""

    def served(load: Any) -> Any:
        def of_any_name(*_: Any, **options: Any) -> Any:
            options.pop("tokenizer_name", None)
            return load(WEIGHTS, **options)

        return of_any_name

    vllm.tokenizers.get_tokenizer = served(vllm.tokenizers.get_tokenizer)
    transformers.AutoConfig.from_pretrained = served(transformers.AutoConfig.from_pretrained)
    transformers.AutoTokenizer.from_pretrained = served(transformers.AutoTokenizer.from_pretrained)
    requests.Session.send = _with_a_key(requests.Session.send)
    httpx.Client.send = _with_a_key(httpx.Client.send)
    httpx.AsyncClient.send = _with_a_key(httpx.AsyncClient.send)
    huggingface_hub.HfApi.snapshot_download = lambda *_, **__: WEIGHTS
    vllm.transformers_utils.repo_utils.hf_api().snapshot_download = lambda *_, **__: WEIGHTS


def _with_a_key(send: Any) -> Any:
    """Requests without an SDK carry no key, because vLLM alone asks for none; the gateway does."""

    def with_a_key(client: Any, request: Any, **options: Any) -> Any:
        if RemoteOpenAIServer.ways:
            request.headers.setdefault("authorization", f"Bearer {RemoteOpenAIServer.ways[_way]['key']}")
        return send(client, request, **options)

    return with_a_key


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that ask no server anything say nothing about the gateway, and are left out."""
    asking = [item for item in items if _asks_a_server(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in asking])
    items[:] = asking


def _asks_a_server(item: Any) -> bool:
    fixtures = [made.func for found in item._fixtureinfo.name2fixturedefs.values() for made in found]
    here = [one for one in fixtures if one.__module__ != __name__]
    return any("RemoteOpenAIServer(" in inspect.getsource(one) for one in (item.obj, *here))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: pytest.CallInfo[None]) -> Any:
    report = (yield).get_result()
    if report.when != "call" and report.outcome == "passed":
        return
    if report.when == "teardown":
        return
    name = re.sub(r"(?<=[\[-])(direct|gateway)(-|(?=\]))", "", item.nodeid).replace("-]", "]").replace("[]", "")
    crash = getattr(report.longrepr, "reprcrash", None)
    line = {
        "test": name.partition("entrypoints/openai/")[2],
        "node": item.nodeid.partition("entrypoints/openai/")[2],
        "way": item.callspec.params["way"],
        "outcome": report.outcome,
        "at": "" if crash is None else f"{Path(crash.path).name}:{crash.lineno}",
        "said": str(report.longrepr if crash is None else crash.message)[:2000] if report.failed else "",
    }
    with open(os.environ["VLLM_SUITE_RESULTS"], "a") as file:
        file.write(json.dumps(line) + "\n")

"""One real vLLM at a time with the arguments that a test file asks for, and a gateway before it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

from openai_wire.fields import RESERVED

from tests.support.inference import VLLM_PYTHON, base_weights
from tests.support.ports import free_port
from tests.support.processes import Server
from tests.support.stack import Gateway, create_key, start_gateway

CPU_ENV = {
    "HF_HUB_OFFLINE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
_UP = re.compile(r"Application startup complete()")
_START_S = 600.0

# Arguments that would choose other weights, hardware or a port; the number of values each has, None: all that follow.
_OURS = {
    "--dtype": 1,
    "--gpu-memory-utilization": 1,
    "--port": 1,
    "--load-format": 1,
    "--enable-lora": 0,
    "--lora-modules": None,
    "--max-lora-rank": 1,
    "--max-cpu-loras": 1,
}


@dataclass(frozen=True)
class Asked:
    """The names that tests call the model by, vLLM's arguments, and its environment."""

    names: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, model: str, args: list[str], env: dict[str, str]) -> Asked:
        """LoRA adapters become further names of the one model, because they could not be downloaded."""
        names, kept, left = [model], [], list(args)
        while left:
            option = left.pop(0)
            if option not in _OURS:
                kept.append(option)
                continue
            values = _OURS[option]
            taken = []
            while left and (len(taken) < values if values is not None else not left[0].startswith("--")):
                taken.append(left.pop(0))
            if option == "--lora-modules":
                names += [value.partition("=")[0] for value in taken]
        return cls(tuple(names), tuple(kept), tuple(sorted(env.items())))


class Engines:
    """Keeps what was started last, because one file's tests share it."""

    def __init__(self) -> None:
        self._asked: Asked | None = None
        self._vllm: Server | None = None
        self._gateway: Gateway | None = None
        self._ways: dict[str, dict[str, str]] = {}

    def serve(self, asked: Asked) -> dict[str, dict[str, str]]:
        """By way (`direct`, `gateway`): the root URL and the key. Raises ServerFailed when vLLM does not start."""
        if asked != self._asked:
            self.stop()
            self._start(asked)
            self._asked = asked
        return self._ways

    def stop(self) -> None:
        for server in (self._gateway, self._vllm):
            if server is not None:
                server.stop(30)
        self._asked = self._vllm = self._gateway = None

    def _start(self, asked: Asked) -> None:
        port = free_port()
        self._vllm = Server(
            [
                *(VLLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", base_weights(), "--served-model-name", *asked.names),
                *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
                *asked.args,
            ],
            env=CPU_ENV | dict(asked.env),
            ready=_UP,
            patience_s=_START_S,
        )
        url = f"http://127.0.0.1:{port}"
        root_path = asked.args[asked.args.index("--root-path") + 1] if "--root-path" in asked.args else ""
        entry: dict[str, Any] = {
            "id": asked.names[0],
            "aliases": list(asked.names[1:]),
            "upstreams": [url + root_path],
            # vLLM's tests set whatever vLLM knows; what callers may set is tested elsewhere.
            "allowed_fields": sorted(RESERVED),
            "allowed_media_domains": ["*"],
        }
        patient = {"first_token_s": 300.0, "total_s": 600.0}
        # All log probabilities of a whole vocabulary make an answer of over 64 MiB.
        self._gateway = start_gateway({"models": [entry], "timeouts": patient, "max_answer_bytes": 2**30})
        key = create_key(self._gateway)
        self._ways = {
            "direct": {"url": url, "key": "none"},
            "gateway": {"url": self._gateway.url, "key": key},
        }


def version() -> str:
    """The version of vLLM in the engine's environment."""
    code = (
        "from importlib import metadata as m\n"
        "try: print(m.version('vllm'))\n"
        "except m.PackageNotFoundError: print(m.version('vllm-cpu'))"
    )
    done = subprocess.run([VLLM_PYTHON, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout.strip().partition("+")[0]

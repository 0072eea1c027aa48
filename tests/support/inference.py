"""`cloudach-inference serve` as a child process: models under a Ray Serve of their own."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml
from cloudach_inference.local.processes import descendants

from .processes import ROOT, Server

VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
CLOSED = (
    *(("POST", path) for path in ("/invocations", "/tokenize", "/scale_elastic_ep", "/v1/load_lora_adapter")),
    *(("GET", path) for path in ("/docs", "/openapi.json", "/version", "/v1/chat/completions")),
)
"""Some of what vLLM serves and the gateway has no use for."""
_READY = re.compile(r"answers at (http://\S+)\n(?:.* answers at .*\n)*engines ready")


class Inference(Server):
    """`base_urls[model id] + "/v1"` is what a client uses, with `api_key`."""

    def __init__(self, config: Mapping[str, Any], *, python: Path | str, patience_s: float) -> None:
        if not Path(python).exists():
            raise RuntimeError(f"{python} is missing: run `make engine`")
        self._folder = Path(tempfile.mkdtemp(prefix="inference-"))
        self.api_key = secrets.token_hex(8)
        config_file, ready_file = self._folder / "config.yaml", self._folder / "ready.json"
        config_file.write_text(yaml.safe_dump({"state_dir": str(self._folder), **config}))
        command = [python, "-m", "cloudach_inference", "serve", "--config", config_file, "--ready-file", ready_file]
        super().__init__(command, env={"CLOUDACH_ENGINE_API_KEY": self.api_key}, ready=_READY, patience_s=patience_s)
        ready = json.loads(ready_file.read_text())
        self.base_urls: dict[str, str] = ready["base_urls"]
        self.pids: dict[str, int] = ready["pids"]

    def metric(self, model: str, name: str) -> float:
        """One of vLLM's own, over all its labels, as of the engine's last step."""
        headers = {"authorization": f"Bearer {self.api_key}"}
        text = httpx.get(f"{self.base_urls[model]}/metrics", headers=headers, timeout=60).text
        values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"vllm:{name}{{")]
        assert values, f"no vllm:{name} among the metrics"
        return sum(values)

    def stop(self, patience_s: float = 30.0) -> int:
        status = super().stop(patience_s)
        shutil.rmtree(self._folder, ignore_errors=True)
        return status


def start_vllm(*models: Mapping[str, Any], **settings: Any) -> Inference:
    return Inference({"models": list(models), **settings}, python=VLLM_PYTHON, patience_s=600)


def start_ray_sim(*models: Mapping[str, Any], **settings: Any) -> Inference:
    made = [{"engine": "sim", **model} for model in models]
    return Inference({"models": made, **settings}, python=sys.executable, patience_s=600)


@cache
def base_weights() -> Path:
    """The default model's folder, made if it is not there. By the name that the engine's environment gives it."""
    code = (
        "from cloudach_inference.cache import cache_root; from cloudach_inference.local import weights as w;"
        " f = w.default_folder(cache_root(None)); w.prepare(f, lambda _: None); print(f)"
    )
    done = subprocess.run([VLLM_PYTHON, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return Path(done.stdout.splitlines()[-1])


def replica_pids(inference: Inference) -> set[int]:
    found = set()
    for pid in descendants(inference.process.pid):
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica:"):
                found.add(pid)
        except OSError:
            continue  # it ended meanwhile
    return found

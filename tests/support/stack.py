"""The data plane as real processes: simulator, gateway (with its embedded Valkey), keys.

with start_sim(rate=50) as sim, start_gateway({"models": [served_by(sim)]}) as gateway:
    key = create_key(gateway, requests_per_minute=5)
    OpenAI(base_url=gateway.base_url, api_key=key)
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from .processes import BIN, Server

ALIAS = "llama3-8b"
"""The model name in the guide: an alias of the default model."""

_one_command = threading.Lock()  # redirect_stdout is for the whole process


class Simulator(Server):
    """`cloudach-sim` and its /sim/ routes (see its --help)."""

    def arm(self, fault: str, times: int | None = 1) -> None:
        """`fault` strikes the next `times` requests; None: every one until `reset()`."""
        self._ask("POST", "faults", {"fault": fault, "times": times})

    def configure(self, **settings: Any) -> None:
        """rate, ttft_ms and so on, for the requests that follow."""
        self._ask("POST", "config", settings)

    def reset(self) -> None:
        """Forgets faults and counts."""
        self._ask("POST", "reset", {})

    def strike(self, fault: str) -> int:
        """This cut, now, for all that runs here and has told a token: how many these are."""
        return int(self._ask("POST", "strike", {"fault": fault})["struck"])

    def wake(self, steps: int | None = None) -> int:
        """What is stalled goes on by so many steps, or for good: how many requests these are."""
        return int(self._ask("POST", "wake", {} if steps is None else {"steps": steps})["woken"])

    def stats(self) -> dict[str, int]:
        counts: dict[str, int] = self._ask("GET", "stats")
        return counts

    def requests(self) -> list[dict[str, Any]]:
        """The last requests, newest first."""
        last: list[dict[str, Any]] = self._ask("GET", "requests")["data"]
        return last

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = httpx.request(method, f"{self.url}/sim/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None


class Gateway(Server):
    """`cloudach-gateway` with a configuration file and a data folder of its own."""

    program: tuple[str | Path, ...] = (BIN / "cloudach-gateway",)

    def __init__(
        self,
        config: Mapping[str, Any],
        env: Mapping[str, str | None] | None = None,
        *,
        own_group: bool = False,
        ready: bool = True,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cloudach-gateway-"))
        self.config_file = self.folder / "gateway.yaml"
        self.config = {
            "listen": {"port": 0, **config.get("listen", {})},
            # A busy machine is no Redis that is away.
            "redis": {"data_dir": str(self.folder / "valkey"), "timeout_s": 5.0, **config.get("redis", {})},
            "timeouts": {"drain_s": 1, **config.get("timeouts", {})},
            **{name: value for name, value in config.items() if name not in ("listen", "redis", "timeouts")},
        }
        self.config_file.write_text(yaml.safe_dump(self.config))
        super().__init__([*self.program, "--config", self.config_file], env=env, own_group=own_group)
        try:
            if ready:
                self._await_readiness()
        except BaseException:
            self.stop()
            raise

    @property
    def base_url(self) -> str:
        """For an OpenAI SDK."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The request log: one entry a request, in the order in which they ended."""
        lines = (json.loads(line) for line in self.output.splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == "request"]

    def stop(self, patience_s: float = 15.0) -> int:
        status = super().stop(patience_s)
        shutil.rmtree(self.folder, ignore_errors=True)
        return status

    def _await_readiness(self, patience_s: float = 60.0) -> None:
        deadline = time.monotonic() + patience_s
        processes = self.config["listen"].get("processes", 1)
        while True:
            try:
                # One that is ready answers for all of them.
                all_up = processes == 1 or self.output.count('"event":"Redis is connected') >= processes
                if all_up and httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not get ready:\n{self.output[-4000:]}")
            time.sleep(0.02)


def workers(gateway: Gateway) -> list[int]:
    """Returns the process ids of a gateway's processes that serve, where it has several."""
    pid = gateway.process.pid
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def start_sim(**options: Any) -> Simulator:
    """`cloudach-sim` on a free port. Options are those of its command line: `rate=50`, `tool_parser="none"`,
    `flat=True`; a list repeats one (`model=["a", "b"]`)."""
    command: list[str | Path] = [BIN / "cloudach-sim"]
    for name, value in {"port": 0, **options}.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            command.append(option)
        elif value is not False and value is not None:
            for item in value if isinstance(value, list | tuple) else [value]:
                command += [option, str(item)]
    return Simulator(command)


def served_by(*engines: Server, **model: Any) -> dict[str, Any]:
    """An entry of the gateway's `models`: the simulator's model under its own name and the guide's alias."""
    return {"id": "sim", "aliases": [ALIAS], "upstreams": [engine.url for engine in engines], **model}


def start_gateway(
    config: Mapping[str, Any],
    env: Mapping[str, str | None] | None = None,
    *,
    own_group: bool = False,
    ready: bool = True,
) -> Gateway:
    """A gateway that is ready, or with `ready=False` listens. `config` as in its settings; port, data folder, a
    short drain and patience with Redis are filled in.

    own_group: in a process group of its own, as a shell starts what stands in the foreground.
    """
    return Gateway(config, env, own_group=own_group, ready=ready)


def create_key(gateway: Gateway, *, tenant: str = "tests", name: str = "test", **limits: Any) -> str:
    """A new API key. `limits` are options of `cloudach keys create`: `requests_per_minute=5`, `models=["a", "b"]`."""
    command = ["keys", "create", "--json"]
    for option, value in {"tenant": tenant, "name": name, **limits}.items():
        text = ",".join(value) if isinstance(value, list | tuple) else str(value)
        command += ["--" + option.replace("_", "-"), text]
    return str(json.loads(cloudach(gateway, *command))["key"])


def cloudach(gateway: Gateway, *words: str) -> str:
    """The output of the command line `cloudach` for a gateway. Raises RuntimeError where it fails.

    It runs in this process: a Python of its own would cost as much as a gateway's start, for each key of each test.
    """
    from cloudach_gateway.admin.cli import main

    said = io.StringIO()
    status: object
    with _one_command, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main([*words, "--config", str(gateway.config_file)])
        except SystemExit as ended:  # argparse's
            status = ended.code
    if status != 0:
        raise RuntimeError(f"cloudach {' '.join(words)} failed:\n{said.getvalue()}")
    return said.getvalue()


def used(gateway: Gateway, key: str) -> dict[str, int]:
    """What the key has used, on whatever days: a test may run over midnight."""
    words = ("totals", "--by", "key", "--from", "2000-01-01", "--format", "json", "--key", key)
    found: list[dict[str, int]] = json.loads(cloudach(gateway, "usage", *words))
    return found[0] if found else {}


def complaints(gateway: Gateway) -> list[str]:
    """What nobody should find in a log."""
    words = ("Traceback", "Exception", "never retrieved", "was destroyed", "unhandled", "ASGI callable")
    return [line for line in gateway.output.splitlines() if any(word in line for word in words)]

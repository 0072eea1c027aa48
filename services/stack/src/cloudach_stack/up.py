"""`cloudach-stack up` starts the engines, then the gateway with its Valkey, and then makes a key."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml
from cloudach_service import private_files
from cloudach_service.settings import expanded

from .children import Child, Children
from .config import ConfigError, Engine, StackConfig, drain_s, gateway_config, inference_config, traces

_LISTENING = "listening on "
_READY_S = 60.0
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({})
)  # it heeds no http_proxy, because the gateway is on this machine


class StartFailed(Exception):
    """The stack could not be started; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Options:
    engine: Engine
    port: int
    state_dir: Path
    config: StackConfig
    engine_python: Path  # that of the environment that has vLLM


def say(text: str) -> None:
    print(f"cloudach: {text}", flush=True)


def up(options: Options, children: Children) -> None:
    """Starts everything, and returns when it serves. Raises ConfigError, StartFailed, ChildFailed."""
    state = options.state_dir
    began = time.monotonic()
    check_gateway(options, state)
    upstreams, engine_key = _start_engines(options, children)
    say("starting the gateway")
    config_file = state / "gateway.yaml"
    config = gateway_config(options.config, port=options.port, state_dir=state, upstreams=upstreams, api_key=engine_key)
    private_files.write(config_file, yaml.safe_dump(config))
    address = _start_server(
        children,
        "gateway",
        [_tool("cloudach-gateway"), "--config", str(config_file)],
        log=state / "gateway.log",
        patience_s=drain_s(config) + 15,
    )
    _wait_for_gateway(address, children, state / "gateway.log")
    base_url = f"{address}/v1"
    key = _development_key(base_url, config_file, state / "env")
    private_files.write(
        state / "env", f"CLOUDACH_BASE_URL={shlex.quote(base_url)}\nCLOUDACH_API_KEY={shlex.quote(key)}\n"
    )
    say(f"ready after {time.monotonic() - began:.0f} s; Ctrl-C or `make stop` ends it")
    names = ", ".join(name for model in options.config.models for name in (model.id, *model.aliases))
    say(f"models: {names}")
    print(f"CLOUDACH_BASE_URL={base_url}\nCLOUDACH_API_KEY={key}", flush=True)


def check_gateway(options: Options, folder: Path) -> None:
    """Lets the gateway check its settings in a file below the folder. Raises ConfigError.

    It comes before the engines, which take minutes to start.
    """
    upstreams = {model.id: "http://127.0.0.1:1" for model in options.config.models}  # nobody is asked
    config = gateway_config(options.config, port=options.port, state_dir=folder, upstreams=upstreams, api_key=None)
    private_files.write(folder / "gateway.yaml", yaml.safe_dump(config))
    command = [_tool("cloudach-gateway"), "--config", str(folder / "gateway.yaml"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise ConfigError(f"the gateway refuses the settings of the section `gateway`:\n{checked.stderr.rstrip()}")


def _start_engines(options: Options, children: Children) -> tuple[dict[str, str], str | None]:
    """Starts the engines. Returns the base URL of each model, and the key that the engines ask for."""
    if options.engine == "sim":
        models = [argument for model in options.config.models for argument in ("--model", model.id)]
        for model in options.config.models:
            for adapter in model.adapters:
                models += ["--adapter", f"{model.id}:{adapter.name}"]
        for name, value in traces(options.config).items():
            models += [f"--traces-{name}", expanded(str(value))]
        say("starting the simulator")
        address = _start_server(
            children,
            "simulator",
            [_tool("cloudach-sim"), "--port", "0", "--rate", "50", "--prompt-tokens-details", *models],
            log=options.state_dir / "simulator.log",
        )
        return {model.id: address for model in options.config.models}, None
    python = options.engine_python if options.engine == "vllm" else Path(sys.executable)
    if not python.exists():
        raise StartFailed(f"There is no {python}: run `make engine` first, which installs vLLM.")
    config_file, ready_file = options.state_dir / "inference.yaml", options.state_dir / "inference.ready.json"
    private_files.write(
        config_file, yaml.safe_dump(inference_config(options.config, options.engine, options.state_dir))
    )
    ready_file.unlink(missing_ok=True)
    engine_key = secrets.token_urlsafe(32)
    children.add(
        Child(
            "inference",
            [
                str(python),
                "-m",
                "cloudach_inference",
                "serve",
                "--config",
                str(config_file),
                "--ready-file",
                str(ready_file),
            ],
            log=options.state_dir / "inference.log",
            env={"CLOUDACH_ENGINE_API_KEY": engine_key},
            on_line=say,
            patience_s=60.0,
        )
    )
    children.wait_until(ready_file.exists, pause_s=0.2)
    base_urls: dict[str, str] = json.loads(ready_file.read_text())["base_urls"]
    return base_urls, engine_key


def _start_server(children: Children, name: str, command: list[str], *, log: Path, patience_s: float = 15.0) -> str:
    """Starts a server that prints `listening on http://…`, and returns that address."""
    found: list[str] = []

    def watch(line: str) -> None:
        if line.startswith(_LISTENING):
            found.append(line.removeprefix(_LISTENING))

    log.unlink(missing_ok=True)
    children.add(Child(name, command, log=log, on_line=watch, patience_s=patience_s))
    children.wait_until(lambda: bool(found))
    return found[0]


def _development_key(base_url: str, config_file: Path, env_file: Path) -> str:
    """Returns the key of the last start if it is still good, and a new one otherwise."""
    if env_file.exists():
        known = dict(
            line.split("=", 1) for line in shlex.split(env_file.read_text(), comments=True) if "=" in line
        ).get("CLOUDACH_API_KEY")
        if known and _get(f"{base_url}/models", key=known)[0] == 200:
            return known
    command = [_tool("cloudach"), "keys", "create", "--config", str(config_file), "--tenant", "dev"]
    made = subprocess.run([*command, "--name", "development", "--json"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise StartFailed(f"The development key could not be made: {made.stderr.strip()}")
    key: str = json.loads(made.stdout)["key"]
    return key


def _wait_for_gateway(address: str, children: Children, log: Path) -> None:
    """Waits until the gateway is ready, and says what it waits for. Raises StartFailed, ChildFailed."""
    missing = ""

    def ready() -> bool:
        nonlocal missing
        status, body = _get(f"{address}/readyz")
        if status == 503 and (names := _missing(body)) and names != missing:
            missing = names
            say(f"the gateway waits: {missing}")
        return status == 200

    try:
        children.wait_until(ready, patience_s=_READY_S)
    except TimeoutError as error:
        why = f" ({missing})" if missing else ""
        raise StartFailed(f"The gateway is not ready after {_READY_S:.0f} s{why}. Log: {log}") from error


def _missing(readiness: bytes) -> str:
    """Returns what /readyz says is missing, as `redis not reached yet`."""
    told: dict[str, str] = json.loads(readiness)
    return ", ".join(f"{name} {text}" for name, text in told.items() if name != "status")


def _get(url: str, *, key: str | None = None) -> tuple[int | None, bytes]:
    """Returns the HTTP status and the body. The status is None while nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with _DIRECT.open(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return None, b""


def _tool(name: str) -> str:
    """Returns the path of a command in the environment that this one runs in."""
    return str(Path(sys.executable).parent / name)

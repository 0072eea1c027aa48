"""The controller with many Models on a real API server: its CPU and calls at rest, its start, its memory.

KubeRay is a stand-in that has all of them running at once. The figures of CPU are the controller's own process's, so a
machine that has other work as well blurs them less than it blurs times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.soak.models.standing import StandingKubeRay, standing_kuberay
from tests.support.accounts import ACCOUNT, NAMESPACE, kubeconfig_of
from tests.support.kube import Cluster, api_server
from tests.support.processes import BIN, Server
from tests.support.release import Helm, prepare
from tests.support.soak.process import holdings

_MODELS = "/apis/cloudach.dev/v1alpha1"
_OURS = (
    *("models", "modeluses", "rayservices", "rayclusters", "pods", "secrets", "events", "leases", "networkpolicies"),
    *("poddisruptionbudgets", "selfsubjectaccessreviews"),
)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.models", description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=10, help="that they are spread over")
    parser.add_argument("--seconds", type=float, default=120, help="of the window at rest")
    parser.add_argument("--settle", type=float, default=30, help="seconds between the last status and the window")
    parser.add_argument("--controller", type=Path, default=BIN / "cloudach-controller", help="the program")
    options = parser.parse_args()
    with api_server() as cluster:
        prepare(cluster)
        with Helm(cluster, NAMESPACE) as helm:
            helm.install({"watchNamespaces": ["*"]})
            print(json.dumps(asyncio.run(_measured(cluster, options)), indent=1))
    return 0


async def _measured(cluster: Cluster, options: argparse.Namespace) -> dict[str, Any]:
    connector = aiohttp.TCPConnector(ssl=cluster.tls)
    async with (
        aiohttp.ClientSession(cluster.url, connector=connector) as api,
        standing_kuberay(cluster) as kuberay,
    ):
        await _make(api, options.models, options.namespaces)
        print(f"{options.models} Models are there", file=sys.stderr)
        account = kubeconfig_of(cluster, ACCOUNT)
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "controller.yaml"
            config.write_text(
                yaml.safe_dump(
                    {
                        "listen": {"port": 0},
                        "kubernetes": {"kubeconfig": str(account)},
                        "leader_election": {"namespace": NAMESPACE},
                        "ray": {"dashboard_url": kuberay.dashboard_url},
                    }
                )
            )
            began = time.monotonic()
            with Server([options.controller, "--config", config]) as server:
                return await _watched(server, api, kuberay, began, options)


async def _watched(
    server: Server, api: aiohttp.ClientSession, kuberay: StandingKubeRay, began: float, options: argparse.Namespace
) -> dict[str, Any]:
    while (ready := await _ready(api)) < options.models:
        if not server.alive:
            raise SystemExit(server.output[-4000:])
        print(f"{ready} are Ready after {time.monotonic() - began:.0f} s", file=sys.stderr)
        await asyncio.sleep(1)
    to_ready_s, start_cpu_s = time.monotonic() - began, _cpu_s(server)
    await asyncio.sleep(options.settle)
    async with aiohttp.ClientSession() as session:
        asked, looks, calls = kuberay.asked, await _looks(session, server), await _calls(api)
        cpu_s, at = _cpu_s(server), time.monotonic()
        await asyncio.sleep(options.seconds)
        cpu_s, window_s = _cpu_s(server) - cpu_s, time.monotonic() - at
        asked, looks = kuberay.asked - asked, await _looks(session, server) - looks
        calls = await _calls(api) - calls
    minutes = window_s / 60
    return {
        "models": options.models,
        "all Ready after, s": round(to_ready_s, 1),
        "CPU until then, s": round(start_cpu_s, 1),
        "CPU at rest, % of a core": round(100 * cpu_s / window_s, 2),
        "looks a minute": round(looks / minutes),
        "CPU a look, ms": round(1000 * cpu_s / looks, 2) if looks else None,
        "dashboards asked a minute": round(asked / minutes),
        "calls of the API server a minute": round(calls.total() / minutes),
        "which": {what: round(count / minutes, 1) for what, count in calls.most_common()},
        "memory, MiB PSS": round(holdings(server.process.pid, set()).pss),
    }


async def _make(api: aiohttp.ClientSession, count: int, namespaces: int) -> None:
    for number in range(namespaces):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}
        async with api.post("/api/v1/namespaces", json=body) as answer:
            answer.raise_for_status()
    for number in range(count):
        namespace = f"team-{number % namespaces}"
        body = {
            "apiVersion": "cloudach.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": f"model-{number}", "namespace": namespace},
            "spec": {
                "source": {"huggingFace": {"repo": "example/model"}},
                "aliases": [f"alias-{number}"],
                "replicas": 1,
                "engine": {"args": {"max_num_seqs": 64}},
            },
        }
        async with api.post(f"{_MODELS}/namespaces/{namespace}/models", json=body) as answer:
            answer.raise_for_status()


async def _ready(api: aiohttp.ClientSession) -> int:
    async with api.get(f"{_MODELS}/models", params={"resourceVersion": "0"}) as answer:
        found = (await answer.json())["items"]
    return sum((one.get("status") or {}).get("state") == "Ready" for one in found)


async def _calls(api: aiohttp.ClientSession) -> Counter[str]:
    """Of all clients; but nobody else asks for these kinds while everything rests."""
    async with api.get("/metrics") as answer:
        text = await answer.text()
    found: Counter[str] = Counter()
    for labels, value in re.findall(r"^apiserver_request_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told.get("resource") in _OURS:
            what = f"{told['verb']} {told['resource']}" + (f"/{told['subresource']}" if told["subresource"] else "")
            found[what] += round(float(value))
    return found


async def _looks(session: aiohttp.ClientSession, server: Server) -> float:
    async with session.get(f"{server.url}/metrics") as answer:
        text = await answer.text()
    return sum(map(float, re.findall(r"^cloudach_controller_reconciles_total\{.*\} (\S+)$", text, re.MULTILINE)))


def _cpu_s(server: Server) -> float:
    """Of the process with all its threads, user and kernel."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


if __name__ == "__main__":
    sys.exit(main())

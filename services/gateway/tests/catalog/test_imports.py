"""What a gateway process loads: each module costs every process memory, and time at its start."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLUSTER = {"cloudach_kube", "cloudach_model_api", "httpx"}
OFFICIAL = {"kubernetes", "aiohttp", "requests"}


@pytest.mark.parametrize(
    ("modules", "loaded"),
    [
        ("cloudach_gateway.worker, cloudach_gateway.app", set()),
        ("cloudach_gateway.worker, cloudach_gateway.app, cloudach_gateway.catalog.cluster", CLUSTER),
    ],
    ids=["without a cluster", "with a cluster"],
)
def test_only_a_gateway_with_a_cluster_loads_what_asks_one(modules: str, loaded: set[str]) -> None:
    code = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & (CLUSTER | OFFICIAL) == loaded

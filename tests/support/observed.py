"""What a gateway says of its requests: the log, the counters, the records."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import BIN
from tests.support.stack import Gateway


def counters(port: int) -> dict[tuple[str, ...], float]:
    """Value by name and labels' values, in the order of the labels' names."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text)
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def usage(gateway: Gateway, *words: str | Path) -> str:
    """What `cloudach usage …` prints."""
    command = [BIN / "cloudach", "usage", *words, "--config", gateway.config_file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def records(gateway: Gateway, tenant: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in usage(gateway, "records", "--tenant", tenant).splitlines()]


def totals(gateway: Gateway, tenant: str) -> dict[str, int]:
    words = ("totals", "--tenant", tenant, "--by", "tenant", "--from", "2000-01-01", "--format", "json")
    found: list[dict[str, int]] = json.loads(usage(gateway, *words))
    (of_tenant,) = found
    return of_tenant


def failovers(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all requests of a request log."""
    return [failover for entry in log for failover in entry.get("failovers", ())]


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def in_short(found: Sequence[dict[str, Any]]) -> str:
    """How many failovers there were and how long they took."""
    took = [failover["took_s"] for failover in found]
    return (
        f"{len(took)} failovers, p50 {percentile(took, 50) * 1000:.0f} ms, "
        f"p99 {percentile(took, 99) * 1000:.0f} ms, longest {max(took) * 1000:.0f} ms"
    )

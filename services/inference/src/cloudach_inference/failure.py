"""Why an engine did not start, out of its log, and what helps: pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RAY_PREFIX = re.compile(r"^\(\S[^)]*pid=\d+[^)]*\)\s?")
_ENGINE_PREFIX = re.compile(r"^(\(\w+ pid=\d+\)\s?)?((ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s?)?")
_EXCEPTION = re.compile(r"^\s*([\w.]+\.)?[A-Z]\w*(Error|Exception|Failure)\b.*")
# What is said about a failure somewhere else.
_SECOND_HAND = re.compile(
    r"See root cause above|RayTaskError|RayActorError|ActorDiedError|WorkerProc failed|deployment.*failed", re.I
)

_MENDS = (
    (
        r"is not a (local folder|valid model identifier)|Repository ?Not ?Found|GatedRepo|401 Client",
        "check the model's `source`; a gated one needs HF_TOKEN in the environment",
    ),
    (
        r"LocalEntryNotFound|OfflineMode|couldn't connect to|ConnectionError|Name or service not known|Max retries",
        "the hub cannot be reached: check the network, or name a local folder as `source`",
    ),
    (
        r"max seq len.*KV cache|larger than the (maximum number|available KV)|No available memory for the cache",
        "lower engine_args.max_model_len, or give more KV cache "
        "(CPU: env.VLLM_CPU_KVCACHE_SPACE in GiB; GPU: engine_args.gpu_memory_utilization)",
    ),
    (
        r"out of memory|Cannot allocate memory|OutOfMemory|killed due to memory|SIGKILL",
        "too little memory: a smaller model, a lower engine_args.max_model_len, or fewer replicas",
    ),
    (
        r"unexpected keyword argument|unrecognized arguments|extra_forbidden|validation error for",
        "check `engine_args`: vLLM does not take one of them as it stands",
    ),
    (
        r"No module named|ImportError|undefined symbol|torchvision::nms",
        "the engine's environment is broken: remove .venv-vllm and run `make engine`",
    ),
    (r"No space left on device", "the disk is full: make room, or name another `cache_dir`"),
    (r"Address already in use|Failed to bind", "a port was taken meanwhile: start again, or set another `http_port`"),
)


def reason(log: Sequence[str], told: str = "") -> list[str]:
    """The engine's own words: the first exceptions that are not about another one."""
    lines = [clean(line) for line in log]
    causes = [line for line in lines if _EXCEPTION.match(line) and not _SECOND_HAND.search(line)]
    if causes:
        return _distinct(causes)[:3]
    told_lines = [clean(line) for line in told.splitlines() if line.strip()]
    told_causes = [line for line in told_lines if _EXCEPTION.match(line)]
    return _distinct(told_causes or told_lines or [line for line in lines if line])[-3:]


def mend(reason_lines: Sequence[str], told: str = "") -> str:
    text = "\n".join(reason_lines) or told
    for pattern, advice in _MENDS:
        if re.search(pattern, text, re.IGNORECASE):
            return advice
    return "the log has the whole story"


def clean(line: str) -> str:
    """Without Ray's and vLLM's prefixes."""
    return _ENGINE_PREFIX.sub("", _RAY_PREFIX.sub("", line)).strip()


def _distinct(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(line[:500] for line in lines))

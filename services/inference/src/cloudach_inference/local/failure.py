"""These functions find in an engine's log why it did not start, and what helps. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RAY_PREFIX = re.compile(r"^\(\S[^)]*pid=\d+[^)]*\)\s?")
_ENGINE_PREFIX = re.compile(r"^(\(\w+ pid=\d+\)\s?)?((ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s?)?")
_EXCEPTION = re.compile(r"^\s*([\w.]+\.)?[A-Z]\w*(Error|Exception|Failure)\b.*")
# What is said about a failure somewhere else.
_SECOND_HAND = re.compile(
    r"See root cause above|: Traceback \(most|Ray(Task|Actor)Error|ActorDiedError|WorkerProc failed|deployment.*failed",
    re.IGNORECASE,
)

_MENDS = (
    (
        r"LoRA adapter '",
        "check the adapter's `source`, and that it was made for this model; a gated one needs HF_TOKEN",
    ),
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
        r"unexpected keyword|Unknown engine argument|unrecognized arguments|extra_forbidden|validation error for",
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
    """Returns up to three lines that say why the engine failed, in its own words.

    They are the first exceptions in its log, or else in Serve's message `told`. Exceptions that only report another
    exception are left out. Where none is found, the last lines are returned.
    """
    logged = [clean(line) for line in log]
    said = [clean(line) for line in told.splitlines()]
    for lines in (logged, said):
        causes = _causes(lines)
        if causes:
            return causes[:3]
    return _distinct([line for line in said or logged if line])[-3:]


def _causes(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    for number, line in enumerate(lines):
        if not _EXCEPTION.match(line) or _SECOND_HAND.search(line):
            continue
        # Some say what is wrong only in the line below.
        below = lines[number + 1 : number + 2] if line.endswith(":") or "validation error" in line else []
        found.append(" ".join([line, *below]).strip())
    return _distinct(found)


def mend(reason_lines: Sequence[str], told: str = "") -> str:
    text = "\n".join(reason_lines) or told
    for pattern, advice in _MENDS:
        if re.search(pattern, text, re.IGNORECASE):
            return advice
    return "the log has the whole story"


def clean(line: str) -> str:
    """Removes Ray's and vLLM's prefixes."""
    return _ENGINE_PREFIX.sub("", _RAY_PREFIX.sub("", line)).strip()


def _distinct(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(line[:500] for line in lines))

"""These functions find why a Model is not as it should be, from the states of pods and the logs of engines. Pure.

The first cause found is reported. Causes are looked for in the order in which they stand in each other's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudach_model_api.reasons import MEANINGS, Reason

from .engine_log import last_error, without_prefix
from .observation import Observation, kuberay_says, serve_says

_ENGINE_WORDS = (
    (Reason.ADAPTER_NOT_LOADED, r"LoRA adapter '[^']+': "),
    (Reason.WEIGHTS_GATED, r"GatedRepo|gated repo|restricted and you are not|401 Client|403 Client|Invalid user token"),
    (
        Reason.WEIGHTS_NOT_FOUND,
        r"Repository ?Not ?Found|RevisionNotFound|is not a local folder|not a valid model identifier|NoSuchBucket"
        r"|NoSuchKey|404 Client|does not appear to have a file named|no config\.json|Can't load the configuration",
    ),
    (
        Reason.OUT_OF_MEMORY,
        r"out of memory|OutOfMemory|Cannot allocate memory|No available memory for the cache|OOM ?Killed"
        r"|larger than the (maximum number|available KV)|max seq len.*KV cache|killed due to memory",
    ),
)
_PULL = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_MOST_CHARACTERS = 1000  # of what an API server or KubeRay says
_QUOTA = re.compile(r"exceeded quota|forbidden: (maximum|minimum)|LimitRange|must specify (limits|requests)", re.I)

FATAL = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.NAME_TAKEN,
        Reason.IMAGE_PULL_FAILED,
        Reason.WEIGHTS_NOT_FOUND,
        Reason.WEIGHTS_GATED,
        Reason.ENGINE_CRASHED,
        Reason.OUT_OF_MEMORY,
        Reason.RAY_SERVICE_FAILED,
        Reason.KUBERAY_MISSING,
    }
)
"""Waiting does not cure these reasons. For the others, a node, a Secret or a volume may still come."""


@dataclass(frozen=True, slots=True)
class Cause:
    reason: Reason
    message: str


def cause(seen: Observation, *, enough: bool = False) -> Cause | None:
    """Returns the first cause that is found; None if nothing is wrong.

    `enough` means that all replicas answer and none is being replaced. Then it does not matter where a further worker
    finds room. Ray's autoscaler and KubeRay each make a pod for one that was evicted, and the second is not needed.
    """
    if seen.kuberay_missing:
        return _with(Reason.KUBERAY_MISSING, "")
    if seen.foreign:
        return _with(Reason.NAME_TAKEN, seen.foreign)
    refused = seen.refused or seen.exposed
    if refused:
        reason = Reason.QUOTA_EXCEEDED if _QUOTA.search(refused) else Reason.RAY_SERVICE_FAILED
        return _with(reason, refused[:_MOST_CHARACTERS])
    if seen.vanished:
        return _with(Reason.RAY_SERVICE_MISSING, "")
    for found in (*_of_pods(seen.pods, enough), _of_engine(seen), _of_kuberay(seen)):
        if found is not None:
            return found
    if seen.unreachable:
        return _with(Reason.RAY_UNREACHABLE, seen.unreachable)
    return None


def _of_pods(pods: tuple[dict[str, Any], ...], enough: bool) -> Iterator[Cause | None]:
    # Without a head nothing comes of the workers, which may hold their GPUs all the same.
    yield from (_unscheduled(pod, Reason.NO_HEAD_NODE_FITS) for pod in pods if _is_head(pod))
    if not enough:
        yield from (_unscheduled(pod, Reason.NO_GPU_NODE_FITS) for pod in pods if not _is_head(pod))
    for pod in pods:
        status = pod.get("status") or {}
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            yield _of_container(pod, container)


def _unscheduled(pod: Mapping[str, Any], where: Reason) -> Cause | None:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = str(condition.get("message") or condition.get("reason") or "")
            volume = re.search(r"persistentvolumeclaim|PersistentVolume|volume node affinity", words, re.I)
            return _with(Reason.VOLUME_MISSING if volume else where, f"{_name(pod)}: {words}")
    return None


def _of_container(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Cause | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    words = f"{_name(pod)}: {waiting.get('message') or waiting.get('reason') or ''}"
    if waiting.get("reason") in _PULL:
        return _with(Reason.IMAGE_PULL_FAILED, words)
    if waiting.get("reason") == "CreateContainerConfigError":
        return _with(Reason.SECRET_MISSING, words)
    if ended and ended.get("reason") == "OOMKilled":
        limit = "the pod's memory limit was reached"
        return _with(Reason.OUT_OF_MEMORY, f"{_name(pod)}: {limit}")
    if waiting.get("reason") == "CrashLoopBackOff":
        said = last_error(str((ended or {}).get("message") or ""))
        return _with(Reason.ENGINE_CRASHED, f"{_name(pod)}: {said}" if said else words)
    return None


def _of_engine(seen: Observation) -> Cause | None:
    said = serve_says(seen.ray_service)
    broken = ("DEPLOY_FAILED", "UNHEALTHY")
    view = seen.replicas
    if view is not None and (view.application in broken or view.deployment in broken):
        said = view.message
    text = "\n".join(part for part in (said, seen.engine_log) if part)
    if not text:
        return None
    for reason, pattern in _ENGINE_WORDS:
        hit = re.search(f"^.*({pattern}).*$", text, re.IGNORECASE | re.MULTILINE)
        if hit:
            return _with(reason, without_prefix(hit[0])[:500])
    return _with(Reason.ENGINE_CRASHED, last_error(text))


def _of_kuberay(seen: Observation) -> Cause | None:
    said = kuberay_says(seen.ray_service)
    if not said:
        return None
    return _with(Reason.QUOTA_EXCEEDED if _QUOTA.search(said) else Reason.RAY_SERVICE_FAILED, said[:_MOST_CHARACTERS])


def _with(reason: Reason, words: str) -> Cause:
    return Cause(reason, f"{MEANINGS[reason]} {words}".strip())


def _is_head(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("labels") or {}).get("ray.io/node-type") == "head"


def _name(pod: Mapping[str, Any]) -> str:
    return f"pod {pod['metadata']['name']}"

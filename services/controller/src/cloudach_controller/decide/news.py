"""These functions choose which Kubernetes events a Model gets: those that an operator wants to know of. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cloudach_model_api.reasons import Reason
from cloudach_model_api.status import Condition, ConditionType, ModelStatus

from .plan import Change

_ON_PURPOSE = (Reason.SLEEPING, Reason.SCALED_TO_ZERO, Reason.DELETING)


@dataclass(frozen=True, slots=True)
class News:
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


def of_status(old: ModelStatus, new: ModelStatus) -> Iterator[News]:
    """Yields the conditions whose status or reason has changed. A first condition that says that all is well is left
    out.
    """
    for condition in new.conditions:
        before = old.condition(condition.type)
        if before is not None and (before.status, before.reason) == (condition.status, condition.reason):
            continue
        was_wrong = before is not None and before.status == "True"
        if condition.reason == Reason.AS_EXPECTED and not was_wrong:
            continue
        if condition.type == ConditionType.PROGRESSING and condition.reason == Reason.KUBERAY_BEHIND:
            continue  # for a moment after each change; Degraded tells when it lasts
        kind: Literal["Normal", "Warning"] = "Warning" if _is_bad(before, condition) else "Normal"
        yield News(kind, condition.reason, condition.message)


def of_change(change: Change, name: str) -> Iterator[News]:
    """Yields what was applied to the RayService, where no condition says it as well."""
    if change == "create":
        yield News("Normal", "RayServiceCreated", f"RayService {name} was made.")
    elif change == "replacement":
        yield News(
            "Normal", "ReplacementBegun", f"RayService {name} was given other pods: a second Ray cluster starts."
        )


def _is_bad(before: Condition | None, now: Condition) -> bool:
    """Tells if something is wrong, or the last replica has gone although nobody asked for that."""
    if now.type == ConditionType.DEGRADED:
        return now.status == "True"
    lost = before is not None and before.status == "True" and now.status == "False"
    return now.type == ConditionType.READY and lost and now.reason not in _ON_PURPOSE

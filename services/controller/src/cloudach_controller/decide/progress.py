"""These functions tell since when a Model that is on its way has made no step. Pure.

A step is another generation, another reason, another number of replicas that answer, or a replica that has gone. The
status says how long none was made; nothing is rolled back or given up because of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cloudach_model_api.reasons import Reason
from cloudach_model_api.status import ConditionType, ModelStatus, rfc3339

from .observation import Replicas


def last_step(
    old: ModelStatus, *, moves: bool, reason: Reason, generation: int, view: Replicas, now: datetime
) -> datetime | None:
    """Returns when the Model made its last step; None if it is not on its way. `old` is the status before."""
    if not moves:
        return None
    before = old.condition(ConditionType.PROGRESSING)
    same = (
        before is not None
        and before.status == "True"
        and before.reason == reason
        and before.observed_generation == generation
        and old.ready_replicas == view.ready
        and (reason != Reason.DRAINING or old.replicas == view.total)
    )
    return (old.progressed_at or now) if same else now


def stalled(since: datetime | None, now: datetime, deadline_s: float) -> str:
    """Returns what to say of a Model that makes no step; empty until the deadline has passed.

    The words stay the same, so that one event is made of them.
    """
    if since is None or now - since <= timedelta(seconds=deadline_s):
        return ""
    return f"No step since {rfc3339(since)}, which is longer than `rollout.progress_deadline_s`."

"""Gateways mark when a Model was used. Their clocks may be hours off, so marks are translated to our clock here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cloudach_model_api.names import MANAGER
from cloudach_model_api.use import ModelUse, UseStatus

from ..key import Key
from .replicas import AHEAD_S


class Marks:
    """Restates the times of a ModelUse, which gateways wrote by their clocks, by the controller's clock.

    A mark that has changed counts as made now. A mark that lies a little ahead, by at most AHEAD_S, keeps its time.
    When an object is first seen, its later mark counts as made when the object was written, by the API server's clock.
    """

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[UseStatus, UseStatus]] = {}  # as it was told, and by our clock

    def by_our_clock(
        self, key: Key, use: ModelUse | None, obj: Mapping[str, Any] | None, now: datetime
    ) -> ModelUse | None:
        """Returns `use` with its times by the controller's clock.

        `obj` is the Kubernetes object that `use` was read from. Its `managedFields` say when it was written.
        """
        told = use.status if use is not None else UseStatus()
        if key not in self._seen:
            self._seen[key] = told, _as_written(told, obj)
        before, ours = self._seen[key]
        if told != before:
            ours = UseStatus(
                wake_requested_at=_moved(before.wake_requested_at, told.wake_requested_at, ours.wake_requested_at, now),
                last_request_at=_moved(before.last_request_at, told.last_request_at, ours.last_request_at, now),
            )
            self._seen[key] = told, ours
        return use.model_copy(update={"status": ours}) if use is not None else None

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)


def _moved(before: datetime | None, told: datetime | None, ours: datetime | None, now: datetime) -> datetime | None:
    if told == before:
        return ours
    if told is None or now <= told <= now + timedelta(seconds=AHEAD_S):
        return told
    return now


def _as_written(told: UseStatus, obj: Mapping[str, Any] | None) -> UseStatus:
    """The later of the two marks is the one that was written last."""
    written = _written_at(obj or {})
    moments = [moment for moment in (told.wake_requested_at, told.last_request_at) if moment is not None]
    if written is None or not moments or written <= max(moments) <= written + timedelta(seconds=AHEAD_S):
        return told
    field = "wake_requested_at" if told.wake_requested_at == max(moments) else "last_request_at"
    return told.model_copy(update={field: written})


def _written_at(obj: Mapping[str, Any]) -> datetime | None:
    """Returns when anybody but the controller last wrote to the object, by the API server's clock."""
    fields = obj.get("metadata", {}).get("managedFields") or ()
    times = [one["time"] for one in fields if one.get("manager") != MANAGER and one.get("time")]
    return max(map(datetime.fromisoformat, times), default=None)

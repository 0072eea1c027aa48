"""The controller reports on a Model with these types."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer

from .part import Observed, list_map


def rfc3339(moment: datetime) -> str:
    """Writes a moment in UTC, to the second, as Kubernetes does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Moment = Annotated[AwareDatetime, PlainSerializer(rfc3339, when_used="json")]


class State(StrEnum):
    """It is one word for `kubectl get`; the conditions say why."""

    PENDING = "Pending"  # accepted, no pod yet, or none that finds a node
    DEPLOYING = "Deploying"  # pods start, weights load
    READY = "Ready"  # all desired replicas answer
    SCALING = "Scaling"  # it answers, and the number of replicas changes
    SLEEPING = "Sleeping"  # no replica, because nobody asks for it; the next request wakes it
    OFF = "Off"  # no replica, because spec.replicas is 0; no request wakes it
    DEGRADED = "Degraded"  # it answers with fewer replicas than it should have
    FAILED = "Failed"  # it does not answer and will not without a change
    DELETING = "Deleting"  # its streams run out


class ConditionType(StrEnum):
    READY = "Ready"  # at least one replica answers
    PROGRESSING = "Progressing"  # on the way to what the spec asks for
    DEGRADED = "Degraded"  # something is wrong that the operator should look at


class Condition(Observed):
    type: Annotated[str, Field(min_length=1, max_length=316)]
    """`Ready`: a replica answers. `Progressing`: the Model is on its way to what the spec asks for. `Degraded`:
    something is wrong."""
    status: Literal["True", "False", "Unknown"]
    """It says whether the condition holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """The reason in one word."""
    message: Annotated[str, Field(max_length=32768)]
    """The reason, and what to do."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The metadata.generation that the condition is about."""
    last_transition_time: Moment
    """The time when `status` last changed."""


def _known_state(value: object) -> object:
    """Returns None for a state of a later release, so that a Model in it can be read after a rollback."""
    return value if value in set(State) else None


class ModelStatus(Observed):
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The last metadata.generation whose spec is in force. Conditions report on a later one that is not."""
    id: str | None = None
    """The name that the API knows the model by: spec.id, or the resource's own name."""
    names: tuple[str, ...] | None = None
    """The names that the Model holds, its id first. Names of adapters that follow from an alias are left out. It keeps
    them for as long as its spec asks for them. If the list is empty, another Model holds its id, so this one is not
    served."""
    state: Annotated[State | None, BeforeValidator(_known_state)] = None
    replicas: Annotated[int, Field(ge=0)] | None = None
    """Replicas that exist, ready or not."""
    ready_replicas: Annotated[int, Field(ge=0)] | None = None
    """Replicas that answer, and that can be reached."""
    desired_replicas: Annotated[int, Field(ge=0)] | None = None
    """Replicas that should exist, by spec.replicas or by the autoscaler."""
    selector: str | None = None
    """Label selector of the worker pods. The HPA reads it through the scale subresource."""
    endpoint: str | None = None
    """Base URL of the engines, without /v1."""
    upstream_model: str | None = None
    """The name that the engines answer to. For an adapter it is `<name>:<adapter>`."""
    adapters: tuple[str, ...] | None = None
    """Names of the adapters that every replica has loaded. The others are not served yet."""
    engine_key: str | None = None
    """A part of the hash of the key that its engines ask for. Gateways read the key itself from the namespace's Secret
    `cloudach-engine-keys`. Without this field the engines ask for none."""
    wake_requested_at: Moment | None = None
    """The time when a request last came while the Model slept."""
    progressed_at: Moment | None = None
    """The time of its last step, while it is on its way."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra=list_map("type")),
    ] = ()
    """They say why it is in this state, and what to do."""

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def to_object(self) -> dict[str, Any]:
        """Returns the fields ready for JSON, without those that are not known."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def set_condition(
    conditions: Iterable[Condition],
    kind: str,
    status: Literal["True", "False", "Unknown"] | bool,
    reason: str,
    message: str,
    *,
    generation: int | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """Returns the conditions with this one in its old place, or last. lastTransitionTime moves only when `status`
    changes.
    """
    if isinstance(status, bool):
        status = "True" if status else "False"
    conditions = tuple(conditions)
    old = next((condition for condition in conditions if condition.type == kind), None)
    new = Condition(
        type=str(kind),
        status=status,
        reason=str(reason),
        message=message,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old is not None and old.status == status else now,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == kind else condition for condition in conditions)

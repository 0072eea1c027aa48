"""Users of the chart's store of Ray's state are described here: their rights, and where a head finds its password.
Pure.

Ray writes hashes `RAY<namespace>@<table>`, and KubeRay takes the RayCluster's UID as this namespace. So each Model has
a user of its own, which reaches the keys of its own clusters and no others.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cloudach_model_api.model import Model

GCS_STORE_SECRET: Final = "cloudach-gcs-store"
"""Each namespace with Models has this Secret, because rights can be tied to a name that is known beforehand."""

COMMANDS: Final = ("-@all", "+@hash", "+@string", "+@keyspace", "+@connection", "-@dangerous", "+info", "+keys")
"""Ray and KubeRay's clean-up need these commands. SCAN and KEYS show the names of all keys, but not their values."""

_PROBE = "DUMMY"
"""Ray deletes this key when it connects, to learn whether it talks to a cluster of Redis servers."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A user of the store belongs to this Model."""

    namespace: str
    name: str
    uid: str

    @property
    def user(self) -> str:
        # Only a name can hold dots: a namespace and a UID cannot.
        return f"{self.namespace}.{self.name}.{self.uid}"


def owner_of(user: str) -> Owner | None:
    """Returns the Model that a Redis user belongs to, read from its name. Other users, such as `default`, give None."""
    namespace, _, rest = user.partition(".")
    name, _, uid = rest.rpartition(".")
    return Owner(namespace, name, uid) if namespace and name and uid else None


def owner(model: Model) -> Owner:
    return Owner(model.metadata.namespace, model.metadata.name, model.metadata.uid)


def password(secret: str, user: str) -> str:
    """Derives the password from the store's own, so nothing has to be kept for a user that is made anew."""
    return hmac.new(secret.encode(), user.encode(), hashlib.sha256).hexdigest()


def prefix(uid: str) -> str:
    """Returns the beginning of the keys of a RayCluster."""
    return f"RAY{uid}@"


def keys_of(uids: Iterable[str]) -> list[str]:
    """Returns the patterns of all keys that a Model's user may reach."""
    return [_PROBE, *(f"{prefix(uid)}*" for uid in sorted(uids))]


def uids_in(patterns: Iterable[str]) -> frozenset[str]:
    """Returns the RayClusters that these patterns are about."""
    return frozenset(one[3:-2] for one in patterns if one.startswith("RAY") and one.endswith("@*"))


def options(model: Model, address: str) -> dict[str, Any]:
    """Returns `gcsFaultToleranceOptions` of a RayCluster. KubeRay takes the cluster's UID where no
    namespace is named.
    """
    reference = {"name": GCS_STORE_SECRET, "key": model.metadata.name}
    return {
        "redisAddress": address,
        "redisUsername": {"value": owner(model).user},
        "redisPassword": {"valueFrom": {"secretKeyRef": reference}},
    }

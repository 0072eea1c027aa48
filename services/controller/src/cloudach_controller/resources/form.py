"""A RayService gets the rayClusterConfig of the cluster that it has, or a new one. Pure.

KubeRay starts a second cluster for every change of that text. So it changes only when a Model's spec or the settings
ask for other pods. Two annotations of the RayService say how the text came about:

    cloudach.dev/cluster-hash   `<hash of what was asked for>-<hash of the rayClusterConfig>`
    cloudach.dev/cluster        the rayClusterConfig, as it was made

What was asked for is `cluster.asked_cluster`. As long as its hash stays, the cluster keeps the text that it was made
with, whatever this release would make of it today. What somebody changes in it by hand is put right. Clusters of
0.1.0 and 0.2.0 have the second hash alone, without a dash. They are known by being made anew as those releases did.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

from cloudach_model_api.model import Model

from ..settings import Settings
from .additions import ALL, Addition, drop_token, lock, lock_ray
from .cluster import asked_cluster, short
from .ray_service import Live, Made


def ray_cluster(model: Model, settings: Settings, token_secret: str = "") -> dict[str, Any]:
    """Returns the rayClusterConfig of a new cluster. `token_secret` holds its Model's own token; empty if
    it has none.
    """
    cluster = _with_additions(asked_cluster(model, settings), model, settings)
    if token_secret:
        lock_ray(cluster, token_secret)
    return cluster


def asked_hash(model: Model, settings: Settings) -> str:
    """Returns a hash of what the Model asks for. Another hash needs another cluster."""
    return short(asked_cluster(model, settings))


def new(model: Model, settings: Settings, token_secret: str = "") -> Made:
    """Returns a new cluster. `token_secret` is as in `ray_cluster`."""
    config = ray_cluster(model, settings, token_secret)
    return Made(config, f"{asked_hash(model, settings)}-{short(config)}", recorded=True)


def running(live: Live, model: Model, settings: Settings) -> Made:
    """Returns the rayClusterConfig from which a RayService's cluster was made.

    If no known form has the hash that was noted then, it is the config as it stands now, with `recorded` False.
    """
    made = live.cluster_hash.rpartition("-")[2]
    for config in _candidates(live, model, settings):
        if short(config) == made:
            return Made(config, live.cluster_hash, recorded=True)
    return Made(live.cluster, live.cluster_hash, recorded=False)


def is_as_asked(made: Made, model: Model, settings: Settings) -> bool:
    """Tells if the cluster was made from what the Model asks for now. Then nothing replaces it."""
    asked, _, text = made.stamp.rpartition("-")
    if asked:
        return asked == asked_hash(model, settings)
    return any(short(config) == text for config in _as_made_before(model, settings))


def _candidates(live: Live, model: Model, settings: Settings) -> Iterator[dict[str, Any]]:
    try:
        recorded = json.loads(live.record)
    except ValueError:
        recorded = None
    if isinstance(recorded, dict):
        yield recorded
    yield live.cluster
    yield ray_cluster(model, settings)
    if "-" not in live.cluster_hash:
        yield from _as_made_before(model, settings)


def _as_made_before(model: Model, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields the texts that 0.1.0 and 0.2.0 made: without additions, or with one or both of the first two."""
    asked = asked_cluster(model, settings)
    for locked, tokenless in product((True, False), repeat=2):
        chosen = {"engine_keys": locked, "automount_service_account_token": not tokenless}
        then = settings.model_copy(update={"inference": settings.inference.model_copy(update=chosen)})
        yield _with_additions(asked, model, then, (lock, drop_token))


def _with_additions(
    asked: dict[str, Any], model: Model, settings: Settings, wanted: tuple[Addition, ...] | None = None
) -> dict[str, Any]:
    cluster = copy.deepcopy(asked)
    for add in ALL if wanted is None else wanted:
        add(cluster, model, settings)
    return cluster

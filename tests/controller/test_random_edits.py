"""Edits and kills at random over ten Models with two controllers: in the end all is as it was asked for.

    EDITS_SECONDS=180 EDITS_SEED=7 make test-edits      # the long form: 200 edits and 50 kills in three minutes

A run that fails names its seed. What is random is what is done; how the processes interleave is not in our hands.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.controller.shop import model
from tests.support.accounts import NAMESPACE
from tests.support.kube import Cluster
from tests.support.kuberay.paper import PATIENCE_S, Paper
from tests.support.processes import Server

from .conftest import Start

SECONDS = float(os.environ.get("EDITS_SECONDS", "15"))
SEED = int(os.environ.get("EDITS_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
PAUSE_S = 180 / 250  # between two of 200 edits and 50 kills in three minutes

pytestmark = pytest.mark.timeout(900 + SECONDS)

LEASE = {"duration_s": 6, "renew_s": 4}
NAMES = [f"m{number}" for number in range(10)]
ALIASES = ["chat", "talk", "code"]  # fewer than Models that ask for them
MODELS, RAY = (f"/apis/{group}/namespaces/{NAMESPACE}" for group in ("cloudach.dev/v1alpha1", "ray.io/v1"))
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
MERGE = {"content-type": "application/merge-patch+json"}


class Watched(Paper):
    """`second`: how often a RayService that had a cluster already was given another one, by name."""

    def __init__(self, *of: Any, **more: Any) -> None:
        self.second: Counter[str] = Counter()
        super().__init__(*of, **more)

    def _make(self, name: str, service: dict[str, Any]) -> None:
        status = service.get("status") or {}
        if (status.get("activeServiceStatus") or {}).get("rayClusterName"):
            self.second[service["metadata"]["name"]] += 1
        super()._make(name, service)


@pytest.fixture
def paper(cluster: Cluster) -> Iterator[Watched]:
    running = Watched(cluster, NAMESPACE)
    try:
        yield running
    finally:
        running.close()


class Site:
    """What operators do. Even Models get new images and are never without replicas; odd ones are switched off, too."""

    def __init__(self, http: httpx.Client, paper: Watched, start: Start, dice: random.Random) -> None:
        self.http = http
        self.paper, self.dice, self._start = paper, dice, start
        self.controllers: list[Server] = []
        self.dead: list[Server] = []
        self.approved: Counter[str] = Counter()
        self.done: list[str] = []
        for _ in range(2):
            self.begin()

    def begin(self) -> None:
        ray = {"stream_limit_s": 2}  # so long dropped clusters stay
        self.controllers.append(self._start(leader_election=LEASE, ray=ray))

    def all(self, path: str) -> dict[str, dict[str, Any]]:
        answer = self.http.get(path)
        answer.raise_for_status()
        return {one["metadata"]["name"]: one for one in answer.json()["items"]}

    def apply(self, name: str) -> None:
        body = model(name, replicas=1, drainSeconds=1)
        self.http.post(f"{MODELS}/models", json=body).raise_for_status()

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        answer = self.http.patch(f"{MODELS}/models/{name}", json={"spec": spec}, headers=MERGE)
        if answer.status_code != 404:
            answer.raise_for_status()

    # Edits.

    def scale(self, name: str) -> None:
        self.patch(name, {"replicas": self.dice.randint(0 if int(name[1:]) % 2 else 1, 3)})

    def arguments(self, name: str) -> None:
        self.patch(name, {"engine": {"args": {"tokens_per_s": self.dice.randint(1, 9)}}})

    def alias(self, name: str) -> None:
        self.patch(name, {"aliases": self.dice.sample(ALIASES, self.dice.randint(0, 2))})

    def drain(self, name: str) -> None:
        self.patch(name, {"drainSeconds": self.dice.randint(0, 2)})

    def autoscaling(self, name: str) -> None:
        scaling = {"minReplicas": 1, "maxReplicas": self.dice.randint(1, 3)}
        self.patch(name, {"autoscaling": self.dice.choice([None, scaling]), "replicas": 1})

    def image(self, name: str) -> None:
        if int(name[1:]) % 2 == 0:
            self.patch(name, {"image": f"example.com/engine:{self.dice.randint(1, 3)}"})

    def approve(self, name: str) -> None:
        """With the word that its condition names, if it asks for one."""
        answer = self.http.get(f"{MODELS}/models/{name}")
        if answer.status_code == 404:  # it was deleted, and is to come again
            return
        found = answer.raise_for_status().json()
        said = " ".join(one["message"] for one in (found.get("status") or {}).get("conditions") or [])
        word = re.search(r"cloudach.dev/allow-replacement=(\S+)", said)
        if word:
            self.approved[name] += 1
            annotations = {"cloudach.dev/allow-replacement": word[1].rstrip(".,")}
            body = {"metadata": {"annotations": annotations}}
            self.http.patch(f"{MODELS}/models/{name}", json=body, headers=MERGE)

    def recreate(self, name: str) -> None:
        """A Model that is deleted is applied again as soon as it is gone, which may be in the end."""
        self.http.delete(f"{MODELS}/models/{name}")

    def hand_edit(self, name: str) -> None:
        change = self.dice.choice(
            [
                {"spec": {"excludeHeadPodFromServeSvc": False}},
                {"spec": {"serveConfigV2": "{}"}},
                {"metadata": {"labels": {"team": self.dice.choice("abc")}}},
            ]
        )
        self.http.patch(f"{RAY}/rayservices/{name}", json=change, headers=MERGE)

    # Kills.

    def kill_controller(self, name: str) -> None:
        gone = self.controllers.pop(self.dice.randrange(len(self.controllers)))
        gone.kill()
        self.dead.append(gone)
        self.begin()

    def kill_pod(self, name: str) -> None:
        pods = sorted(self.all(PODS))
        if pods:
            self.http.delete(f"{PODS}/{self.dice.choice(pods)}")

    def kill_operator(self, name: str) -> None:
        self.paper.stop_operator()
        time.sleep(self.dice.uniform(0, 0.5))
        self.paper.start_operator()

    def kill_ray_service(self, name: str) -> None:
        self.http.delete(f"{RAY}/rayservices/{name}")

    def act(self) -> None:
        edits = [self.scale, self.scale, self.arguments, self.alias, self.drain, self.autoscaling, self.image]
        edits += [self.approve, self.approve, self.recreate, self.hand_edit]
        kills = [self.kill_controller, self.kill_pod, self.kill_pod, self.kill_operator, self.kill_ray_service]
        do, name = self.dice.choice(edits if self.dice.random() < 0.8 else kills), self.dice.choice(NAMES)
        self.done.append(f"{do.__name__} {name}")
        do(name)
        self.apply_missing()

    def apply_missing(self) -> None:
        there = self.all(f"{MODELS}/models")
        for name in NAMES:
            if name not in there:
                self.apply(name)

    # In the end.

    def amiss(self) -> list[str]:
        """What is not as it was asked for."""
        self.apply_missing()
        models, services = self.all(f"{MODELS}/models"), self.all(f"{RAY}/rayservices")
        found = [f"{name}: {what}" for name, one in models.items() for what in self._amiss(one)]
        found += [f"RayService {name} of no Model" for name in services.keys() - models.keys()]
        known = {pod for name in NAMES for ray_cluster in self._clusters(name) for pod in self.paper.pods(ray_cluster)}
        found += [f"stray pod {name}" for name in self.all(PODS).keys() - known]
        found += [f"{name}: dropped clusters {dropped}" for name in NAMES if (dropped := self.paper.dropped(name))]
        held = Counter(alias for one in models.values() for alias in (one.get("status") or {}).get("names") or ())
        found += [f"{alias} is held {count} times" for alias, count in held.items() if count > 1]
        asked = {alias for one in models.values() for alias in one["spec"].get("aliases") or ()}
        found += [f"nobody holds {alias}" for alias in asked - held.keys()]
        return found

    def _clusters(self, name: str) -> list[str]:
        return [one for one in (self.paper.active(name), self.paper.pending(name), *self.paper.dropped(name)) if one]

    def _amiss(self, one: dict[str, Any]) -> Iterator[str]:
        name, spec, status = one["metadata"]["name"], one["spec"], one.get("status") or {}
        conditions = {each["type"]: each for each in status.get("conditions") or []}
        wanted = spec.get("replicas", 1)
        scaling = spec.get("autoscaling")
        if scaling:
            wanted = min(max(wanted, 1), scaling["maxReplicas"])
        if one["metadata"].get("deletionTimestamp"):
            yield "it is being deleted"
        if status.get("observedGeneration") != one["metadata"]["generation"]:
            yield "an old generation"
        degraded = conditions.get("Degraded", {})
        taken = degraded.get("reason") == "NameTaken"
        if degraded.get("status") != "False" and not taken:
            yield f"{degraded.get('reason')}: {degraded.get('message')}"
        state = "Off" if wanted == 0 else "Degraded" if taken else "Ready"
        if status.get("state") != state or status.get("readyReplicas") != wanted:
            progressing = conditions.get("Progressing", {})
            yield (
                f"{status.get('state')} with {status.get('readyReplicas')}, wanted {state} with {wanted};"
                f" {progressing.get('reason')}: {progressing.get('message')}"
            )
        if self.paper.replicas(name) != wanted:
            yield f"{self.paper.replicas(name)} replicas run, {wanted} wanted"
        waits = conditions.get("Progressing", {}).get("reason") == "ReplacementPending"
        asked = (spec.get("engine") or {}).get("args") or {}
        last = (self.paper.applied.get(name) or [{}])[-1].get("applications") or [{}]
        runs = last[0].get("args", {}).get("simulator", last[0].get("args", {}))
        if not waits and wanted and any(str(value) not in json.dumps(runs) for value in asked.values()):
            yield f"arguments {asked} are not in {runs}"


def test_all_is_as_it_was_asked_for_after_edits_and_kills_at_random(
    cluster: Cluster, paper: Watched, start: Start
) -> None:
    with httpx.Client(verify=cluster.tls, base_url=cluster.url, trust_env=False, timeout=60) as http:
        _edited_and_killed(Site(http, paper, start, random.Random(SEED)), paper)


def _edited_and_killed(site: Site, paper: Watched) -> None:
    for name in NAMES:
        site.apply(name)
    assert _settled(site)[0] == [], f"in the beginning; seed {SEED}"
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        began = time.monotonic()
        site.act()
        time.sleep(max(0.0, PAUSE_S - (time.monotonic() - began)))
    left, took = _settled(site)
    print(f"seed {SEED}: {len(site.done)} actions, all as wanted {took:.1f} s after the last")
    history = f"seed {SEED}; {Counter(one.split()[0] for one in site.done)}; last: {site.done[-25:]}"
    assert left == [], history
    unasked = {name: count for name, count in paper.second.items() if count > site.approved[name]}
    assert unasked == {}, f"second clusters that nobody approved, of {site.approved}; {history}"
    for controller in [*site.controllers, *site.dead]:
        assert "reconcile failed" not in controller.output, history


def _settled(site: Site) -> tuple[list[str], float]:
    """What is amiss in the end, and the time until nothing was."""
    began = time.monotonic()
    while (left := site.amiss()) and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.2)
    return left, time.monotonic() - began

"""Each Model's own token of Ray: its seed, the copy that pods read, and which one a head is asked with."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import Any

import pytest
from cloudach_controller.act.own_tokens import OwnTokens
from cloudach_controller.resources.additions import lock_ray
from cloudach_controller.resources.form import asked_hash, is_as_asked, new, ray_cluster
from cloudach_controller.resources.ray_service import ANNOTATION_OTHERS
from cloudach_controller.resources.ray_tokens import SEED_SECRET, own_token, secret_of
from cloudach_controller.settings import parse
from cloudach_kube.errors import Conflict, KubeError, NotFound, Refused, Unreachable
from cloudach_kube.kinds import Kind
from cloudach_model_api.model import Model

SETTINGS = parse("")


def model(name: str = "m", uid: str = "u1", namespace: str = "llm") -> Model:
    metadata = {"name": name, "namespace": namespace, "uid": uid}
    return Model.from_object({"metadata": metadata, "spec": {"source": {"simulator": {}}}})


class Paper:
    """Secrets. `asked`: what was asked for, in order. `refuses`: verbs that are forbidden."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.refuses: set[str] = set()
        self.fails: KubeError | None = None  # instead of making anything

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        self._ask("get", name)
        await asyncio.sleep(0)
        try:
            return self.there[namespace or "", name]
        except KeyError:
            raise NotFound(404, name) from None

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        self._ask("create", name)
        await asyncio.sleep(0)
        if (namespace, name) in self.there:
            raise Conflict(409, name)
        self.there[namespace, name] = body
        return body

    def _ask(self, verb: str, name: str) -> None:
        self.asked.append((verb, name))
        if verb in self.refuses:
            raise Refused(403, "forbidden")
        if verb == "create" and self.fails is not None:
            raise self.fails


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens(paper: Paper, settings: str = "", clock: Clock | None = None) -> OwnTokens:
    return OwnTokens(paper, parse(settings).ray, clock or Clock())


async def test_models_at_once_in_a_new_namespace_get_tokens_of_one_seed() -> None:
    paper = Paper()
    own = tokens(paper)
    made = await asyncio.gather(*(own.for_new_cluster(model(f"m{number}")) for number in range(8)))
    assert len({token.value for token in made if token is not None}) == 8
    assert paper.asked == [("get", SEED_SECRET), ("create", SEED_SECRET)]
    again = tokens(paper)  # after a restart
    assert await again.of(model("m3")) == made[3]
    assert await again.of(model("m3", uid="another")) != made[3]
    assert await again.of(model("m3", namespace="other")) != made[3]


async def test_another_controller_that_was_faster_has_made_the_seed() -> None:
    paper = Paper()
    first, second = tokens(paper), tokens(paper)
    one, two = await asyncio.gather(first.of(model()), second.of(model()))
    assert one == two is not None


@pytest.mark.parametrize("refused", [{"get"}, {"create"}])
async def test_without_a_right_the_namespace_goes_on_with_the_token_that_it_shares(refused: set[str]) -> None:
    paper, clock = Paper(), Clock()
    paper.refuses = refused
    own = tokens(paper, clock=clock)
    for _ in range(5):
        assert await own.for_new_cluster(model()) is None
    assert len(paper.asked) <= 2, "it is not asked for again and again"
    paper.refuses = set()
    clock.now += 61
    assert await own.for_new_cluster(model()) is not None


async def test_a_webhook_that_fails_lets_no_cluster_begin_with_the_shared_token() -> None:
    paper, clock = Paper(), Clock()
    paper.fails = Unreachable(500, "failed calling webhook")
    own = tokens(paper, clock=clock)
    for _ in range(3):
        with pytest.raises(Unreachable, match="webhook"):
            await own.for_new_cluster(model())
    assert len(paper.asked) == 2, "it is not asked for at each look"
    paper.fails = None
    clock.now += 6
    assert await own.for_new_cluster(model()) is not None
    # What is known stays known.
    paper.there.clear()
    paper.fails = Unreachable(0, "nobody is there")
    clock.now += 61
    assert await own.for_new_cluster(model()) is not None


async def test_a_seed_that_is_deleted_comes_back_as_it_was() -> None:
    paper, clock = Paper(), Clock()
    own = tokens(paper, clock=clock)
    before = await own.of(model())
    seed = paper.there.pop(("llm", SEED_SECRET))["data"]
    clock.now += 61
    assert await own.of(model()) == before
    assert paper.there["llm", SEED_SECRET]["data"] == seed


async def test_switched_off_nothing_is_made_and_what_runs_is_asked_with_its_own_all_the_same() -> None:
    paper = Paper()
    assert await tokens(paper, "ray: {token_per_model: false}").for_new_cluster(model()) is None
    assert paper.asked == []
    made = await tokens(paper).of(model())
    assert await tokens(paper, "ray: {token_per_model: false}").of(model()) == made
    assert await tokens(paper, "ray: {token_auth: false}").of(model()) is None


async def test_a_copy_is_made_once_and_again_when_a_pod_waits() -> None:
    paper, clock = Paper(), Clock()
    own = tokens(paper, clock=clock)
    token = await own.of(model())
    assert token is not None
    waits = {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError"}}}]}
    waiting = {"metadata": {}, "status": waits}

    async def tries(*pods: dict[str, Any], for_new_pods: bool = False) -> int:
        before = len(paper.asked)
        await own.keep(model(), token, pods, for_new_pods=for_new_pods)
        return len(paper.asked) - before

    assert [await tries(for_new_pods=True), await tries(for_new_pods=True), await tries()] == [1, 0, 0]
    copy = paper.there["llm", token.secret]
    assert b64decode(copy["data"]["auth_token"]).decode() == token.value
    assert copy["metadata"]["ownerReferences"][0]["uid"] == "u1"
    clock.now += 11
    assert [await tries(), await tries(waiting), await tries(waiting)] == [0, 1, 0]
    clock.now += 601
    assert [await tries(), await tries()] == [1, 0]


async def test_new_pods_do_not_come_before_their_copy() -> None:
    paper = Paper()
    own = tokens(paper)
    token = await own.of(model())
    assert token is not None
    paper.refuses = {"create"}
    for _ in range(2):
        with pytest.raises(KubeError):
            await own.keep(model(), token, (), for_new_pods=True)
    await own.keep(model(), token, (), for_new_pods=False)  # what runs waits for the next try
    assert len(paper.asked) == 4


def test_a_cluster_with_another_token_is_not_replaced_for_it() -> None:
    before, after = new(model(), SETTINGS), new(model(), SETTINGS, "m-ray-token-1")
    assert before.config["authOptions"]["secretName"] == "cloudach-ray-token"
    assert after.config["authOptions"] == {"mode": "token", "secretName": "m-ray-token-1"}
    assert is_as_asked(before, model(), SETTINGS)
    assert is_as_asked(after, model(), SETTINGS)
    assert before.stamp.partition("-")[0] == after.stamp.partition("-")[0] == asked_hash(model(), SETTINGS)
    unlocked = ray_cluster(model(), parse("ray: {token_auth: false}"))
    lock_ray(unlocked, "m-ray-token-1")
    assert "authOptions" not in unlocked


def head(cluster: str, secret: str) -> dict[str, Any]:
    """As KubeRay makes it."""
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
    env = [{"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "auth_token"}}}]
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "ray-head", "env": env}]}}


def ray_service(said: str, *, active: str, pending: str = "", others: str = "") -> dict[str, Any]:
    return {
        "metadata": {"annotations": {ANNOTATION_OTHERS: others}},
        "spec": {"rayClusterConfig": {"authOptions": {"secretName": said}}},
        "status": {
            "activeServiceStatus": {"rayClusterName": active},
            "pendingServiceStatus": {"rayClusterName": pending},
        },
    }


SHARED = '{"m-1": {"config": {"authOptions": {"secretName": "shared"}}}}'


@pytest.mark.parametrize(
    ("there", "cluster", "secret"),
    [
        (ray_service("own", active="m-1"), "m-1", "own"),
        (ray_service("own", active="m-1", pending="m-2", others=SHARED), "m-1", "shared"),
        (ray_service("own", active="m-1", pending="m-2", others=SHARED), "m-2", "own"),
        # Nobody knows what it was made from.
        (ray_service("own", active="m-1", pending="m-2", others='{"m-1": null}'), "m-1", "told by its pod"),
        # It was replaced, and its streams run on.
        (ray_service("own", active="m-2"), "m-1", "told by its pod"),
        (None, "m-1", "told by its pod"),
        (ray_service("own", active="m-2"), "m-9", ""),
    ],
)
def test_the_token_that_a_head_is_asked_with_is_that_of_its_cluster(
    there: dict[str, Any] | None, cluster: str, secret: str
) -> None:
    pods = [head("m-2", "wrong"), head("m-1", "told by its pod")]
    assert secret_of(there, pods, cluster) == secret


def test_the_name_of_a_copy_follows_the_seed() -> None:
    """So that another seed makes another copy, and nothing has to be changed."""
    one, two = own_token("a", model()), own_token("b", model())
    assert one.secret != two.secret
    assert one.secret.startswith("m-ray-token-")
    assert one.value not in repr(one)

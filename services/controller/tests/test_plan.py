"""What is done about a change, by what it costs."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudach_controller.drift import covers
from cloudach_controller.plan import Plan, plan
from cloudach_controller.replicas import Demand, caught_up, demand
from cloudach_controller.resources.additions import is_locked
from cloudach_controller.resources.ray_service import may_sleep_since
from cloudach_controller.settings import Settings, parse
from cloudach_model_api.model import Model
from cloudach_model_api.use import ModelUse

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def model(spec: dict[str, Any] | None = None, *, generation: int = 1, **meta: Any) -> Model:
    base = {"source": {"huggingFace": {"repo": "Qwen/Qwen3-8B"}}, "replicas": 2}
    metadata = {"name": "qwen", "namespace": "llm", "uid": "u1", "generation": generation, **meta}
    return Model.from_object({"metadata": metadata, "spec": base | (spec or {})})


def planned(
    wanted: Model,
    there: dict[str, Any] | None,
    *,
    target: int | None = None,
    settings: str = "",
    since: datetime | None = None,
) -> Plan:
    asked = demand(wanted, NOW, may_sleep_since=since)
    return plan(wanted, asked, there, parse(settings), target=target, now=NOW)


def told(of: Model, **status: Any) -> Model:
    """With this status."""
    return Model.from_object(of.model_dump(mode="json", by_alias=True, exclude_none=True) | {"status": status})


def served(manifest: dict[str, Any] | None, *, active: str = "qwen-aaaaa", pending: str = "") -> dict[str, Any]:
    """The RayService with KubeRay's status, when it has seen all of it."""
    assert manifest is not None
    there = copy.deepcopy(manifest)
    there["metadata"] |= {"generation": 1, "resourceVersion": "7"}
    there["status"] = {
        "observedGeneration": 1,
        "activeServiceStatus": {"rayClusterName": active},
        "pendingServiceStatus": {"rayClusterName": pending} if pending else {},
    }
    return there


def made(of: Model, *, settings: str = "") -> dict[str, Any]:
    """Its RayService when the first cluster serves."""
    first = served(planned(of, None, settings=settings).manifest)
    return served(planned(of, first, settings=settings).manifest or first)


def asked_word(done: Plan) -> str:
    """The one that the message tells; all of the command can be pasted."""
    (command,) = re.findall(r"kubectl annotate model qwen -n llm --overwrite \S+$", done.waiting)
    return str(command).rpartition("cloudach.dev/allow-replacement=")[2]


def override(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])["applications"][0]["deployments"][0]
    return found


def fixed(manifest: dict[str, Any] | None) -> int:
    """The one number of replicas that Serve may have."""
    bounds = override(manifest)["autoscaling_config"]
    (count,) = set(bounds.values())
    assert bounds.keys() == {"min_replicas", "initial_replicas", "max_replicas"}
    return int(count)


def args(manifest: dict[str, Any] | None) -> dict[str, Any]:
    assert manifest is not None
    found: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])["applications"][0]["args"]
    return found


def test_nothing_is_there_so_it_is_made() -> None:
    done = planned(model(), None)
    assert done.change == "create"
    assert done.manifest is not None
    assert done.manifest["metadata"]["name"] == "qwen"
    assert done.manifest["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert fixed(done.manifest) == 2


def test_all_is_as_it_should_be() -> None:
    assert planned(model(), made(model())).change == "none"


def lora(*adapters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"lora": {"adapters": list(adapters), **more}}


SQL = {"name": "sql", "source": {"huggingFace": {"repo": "o/sql"}}}
CHAT = {"name": "chat", "source": {"huggingFace": {"repo": "o/chat"}}}
ON_CLAIM = {"name": "claim", "source": {"pvc": {"claimName": "adapters", "path": "x"}}}


IN_PLACE: dict[str, dict[str, Any]] = {
    "replicas": {"replicas": 5},
    "drain": {"drainSeconds": 10},
    "off": {"replicas": 0},
    "autoscaling": {"autoscaling": {"maxReplicas": 4}},
}
ROLLING: dict[str, dict[str, Any]] = {
    "engine": {"engine": {"args": {"gpu_memory_utilization": 0.8}}},
    "length": {"maxModelLen": 1000},
    "repo": {"source": {"huggingFace": {"repo": "Qwen/Qwen3-4B"}}},
    "env": {"engine": {"env": [{"name": "A", "value": "1"}]}},
    "adapters": lora(SQL),
    "an adapter of a bucket": lora({"name": "b", "source": {"objectStore": {"uri": "s3://b/x"}}}),
    "room for adapters": lora(SQL, maxRank=64, maxLoaded=2),
}
REPLACEMENT: dict[str, dict[str, Any]] = {
    "image": {"image": "example.com/engine:2"},
    "gpus": {"gpu": {"tensorParallel": 2}},
    "gpu type": {"gpu": {"type": "H100"}},
    "resources": {"resources": {"limits": {"memory": "64Gi"}}},
    "node": {"nodeSelector": {"pool": "b"}},
    "tolerations": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "token": {"source": {"huggingFace": {"repo": "Qwen/Qwen3-8B", "tokenSecret": {"name": "hf"}}}},
    "volume": {"source": {"pvc": {"claimName": "w"}}},
    "secret env": {"engine": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}},
    "account": {"serviceAccountName": "ray"},
    "routing": {"routing": "prefixAware"},
    "pull secret": {"imagePullSecrets": [{"name": "reg"}]},
    "a claim of adapters": lora(ON_CLAIM),
    "an adapter's token": lora({"name": "a", "source": {"huggingFace": {"repo": "o/a", "tokenSecret": {"name": "s"}}}}),
    "an adapter's bucket": lora(
        {"name": "a", "source": {"objectStore": {"uri": "s3://b/x", "credentialsSecret": {"name": "s"}}}}
    ),
}


@pytest.mark.parametrize("spec", IN_PLACE.values(), ids=IN_PLACE)
def test_in_place(spec: dict[str, Any]) -> None:
    """The engine's arguments and the pods stay as they are to the letter, for Serve and KubeRay compare them."""
    before = made(model())
    done = planned(model(spec, generation=2), before)
    assert done.change == "in place"
    assert done.manifest is not None
    assert args(done.manifest) == args(before)
    assert done.manifest["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"]
    assert override(done.manifest) != override(before)


@pytest.mark.parametrize("spec", ROLLING.values(), ids=ROLLING)
def test_rolling(spec: dict[str, Any]) -> None:
    before = made(model())
    done = planned(model(spec, generation=2), before)
    assert (done.change, done.waiting) == ("rolling", "")
    assert done.manifest is not None
    assert done.manifest["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"]
    assert override(done.manifest)["max_surge_percent"] == 1  # a new replica before an old one goes


@pytest.mark.parametrize("spec", REPLACEMENT.values(), ids=REPLACEMENT)
def test_a_replacement_waits_for_the_operators_word(spec: dict[str, Any]) -> None:
    before = made(model())
    done = planned(model(spec, generation=2), before)
    assert done.change == "none"
    assert "nvidia.com/gpu more" in done.waiting
    for word in (asked_word(done), "always", "once:the new pods, 2026-12-01"):
        allowed = model(spec, generation=2, annotations={"cloudach.dev/allow-replacement": word})
        done = planned(allowed, before)
        assert (done.change, done.waiting) == ("replacement", "")
        assert done.manifest is not None
        assert done.manifest["spec"]["rayClusterConfig"] != before["spec"]["rayClusterConfig"]
        assert done.manifest["spec"]["rayClusterDeletionDelaySeconds"] == 960
        assert planned(allowed, served(done.manifest, pending="qwen-bbbbb")).change == "none"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lora(SQL), lora(SQL, CHAT)),
        (lora(SQL, CHAT), lora(CHAT)),
        (lora(SQL), {}),
        (lora(ON_CLAIM), lora(ON_CLAIM, {"name": "b", "source": {"pvc": {"claimName": "adapters"}}})),
        (lora(SQL), lora({**SQL, "source": {"huggingFace": {"repo": "o/sql", "revision": "v2"}}})),
        (lora(SQL), lora(SQL, maxLoaded=4)),
    ],
    ids=["more", "fewer", "none", "same claim", "revision", "in a batch"],
)
def test_another_list_of_adapters_is_rolled_out(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert planned(model(after), made(model(before))).change == "rolling"


@pytest.mark.parametrize(
    "after", [lora(CHAT, SQL), lora({**SQL, "id": "own-name"}, CHAT), {**lora(SQL, CHAT), "id": "Other"}]
)
def test_their_order_and_their_ids_are_nothing_to_the_engines(after: dict[str, Any]) -> None:
    assert planned(model(after), made(model(lora(SQL, CHAT)))).change == "none"


def test_adapters_with_the_bases_own_secret_need_no_new_pods() -> None:
    hub = {"repo": "meta/llama", "tokenSecret": {"name": "hf"}}
    adapter = {"name": "a", "source": {"huggingFace": {"repo": "o/a", "tokenSecret": {"name": "hf"}}}}
    base: dict[str, Any] = {"source": {"huggingFace": hub}}
    assert planned(model(base | lora(adapter)), made(model(base))).change == "rolling"
    claim: dict[str, Any] = {"source": {"pvc": {"claimName": "w", "path": "base"}}}
    adapter = {"name": "a", "source": {"pvc": {"claimName": "w", "path": "adapters/a/"}}}
    done = planned(model(claim | lora(adapter)), made(model(claim)))
    assert done.change == "rolling"
    assert args(done.manifest)["lora"]["adapters"] == [{"name": "a", "folder": "/models/adapters/a"}]


def test_the_word_of_an_older_release_approves_nothing_and_is_told_so() -> None:
    """That release has acted on it at once, so it is used up; it must not approve the pods of a chart's upgrade."""
    old = model({"image": "x:3"}, generation=3, annotations={"cloudach.dev/allow-replacement": "3"})
    done = planned(old, made(model()))
    assert done.change == "none"
    assert "A number, as older releases asked for, approves nothing." in done.waiting


def test_the_word_is_not_asked_for_where_the_settings_say_so() -> None:
    done = planned(model({"image": "x:2"}), made(model()), settings="rollout: {replacement: at_once}")
    assert done.change == "replacement"


def test_while_a_replacement_waits_the_replicas_follow_all_the_same() -> None:
    before = made(model())
    done = planned(model({"image": "x:2", "maxModelLen": 99, "replicas": 7}, generation=2), before)
    assert done.change == "in place"
    assert done.waiting
    assert fixed(done.manifest) == 7
    assert args(done.manifest) == args(before)  # the new arguments belong to the new pods
    assert done.manifest is not None
    assert done.manifest["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"]
    again = planned(model({"image": "x:2", "maxModelLen": 99, "replicas": 7}), served(done.manifest))
    assert again.change == "none"


def test_without_replicas_nothing_is_doubled_so_nobody_is_asked() -> None:
    before = made(model({"replicas": 0}))
    done = planned(told(model({"image": "x:2", "replicas": 0}), replicas=0), before)
    assert (done.change, done.waiting) == ("replacement", "")
    # Replicas that still go hold GPUs, and their streams run.
    assert planned(told(model({"image": "x:2", "replicas": 0}), replicas=1), before).change == "none"
    assert planned(model({"image": "x:2", "replicas": 0}), before).change == "none"


def test_a_deletion_replaces_nothing() -> None:
    going = model({"image": "x:2"}, deletionTimestamp=NOW.isoformat())
    done = planned(going, made(model()))
    assert done.change == "in place"
    assert override(done.manifest)["autoscaling_config"]["initial_replicas"] == 0


def test_what_somebody_else_wrote_is_put_right() -> None:
    meddled = copy.deepcopy(made(model()))
    meddled["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] = "evil"
    meddled["metadata"]["generation"] = 2
    done = planned(model(), meddled)
    assert done.manifest is not None
    assert done.manifest["spec"] == made(model())["spec"]


def test_what_others_add_stays_out_of_it() -> None:
    there = copy.deepcopy(made(model()))
    there["metadata"]["labels"]["team"] = "a"
    there["spec"]["suspend"] = False
    there["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = (
        "TCP"
    )
    assert planned(model(), there).change == "none"


AUTOSCALED: dict[str, Any] = {"autoscaling": {"maxReplicas": 8}, "replicas": 2}


@pytest.mark.parametrize(
    ("spec", "target", "begin"),
    [
        (AUTOSCALED, 5, 2),  # nothing new: the text stays the same, or Serve would go back to it
        (AUTOSCALED | {"drainSeconds": 5}, 5, 5),  # something else is new: on from where it is
        (AUTOSCALED | {"drainSeconds": 5}, None, 2),
        (AUTOSCALED | {"replicas": 3}, 5, 3),  # kubectl scale: on from there
        (AUTOSCALED | {"autoscaling": {"maxReplicas": 4}}, 5, 4),  # new bounds
        (AUTOSCALED | {"autoscaling": {"minReplicas": 6, "maxReplicas": 8}}, 5, 6),
    ],
)
def test_where_the_autoscaler_goes_on_from(spec: dict[str, Any], target: int | None, begin: int) -> None:
    before = made(model(AUTOSCALED))
    done = planned(model(spec, generation=2), before, target=target)
    found = override(done.manifest or before)["autoscaling_config"]
    assert found["initial_replicas"] == begin


@pytest.mark.parametrize(
    ("spec", "meta", "expected"),
    [
        ({"replicas": 3}, {}, Demand("running", 3)),
        ({"replicas": 0}, {}, Demand("off", 0)),
        ({"autoscaling": {"maxReplicas": 4}}, {}, Demand("running", 2, autoscaled=True)),
        ({"autoscaling": {"maxReplicas": 1}}, {}, Demand("running", 1, autoscaled=True)),
    ],
)
def test_demand(spec: dict[str, Any], meta: dict[str, Any], expected: Demand) -> None:
    assert demand(model(spec, **meta), NOW) == expected


ZERO: dict[str, Any] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 600}}


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


@pytest.mark.parametrize(
    ("marks", "mode"),
    [
        ({"creationTimestamp": at(599)}, "running"),
        ({"creationTimestamp": at(601)}, "sleeping"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/wake-requested-at": at(5)}}, "running"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/wake-requested-at": at(700)}}, "sleeping"),
        # Gateways write their mark once a minute at most, so it may be that much older than the last request.
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": at(650)}}, "running"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": at(661)}}, "sleeping"),
        ({"creationTimestamp": at(9999), "annotations": {"cloudach.dev/last-request-at": "soon"}}, "sleeping"),
    ],
)
def test_sleeping(marks: dict[str, Any], mode: str) -> None:
    found = demand(model(ZERO, **marks), NOW)
    assert found.mode == mode
    assert (found.look_again_s is not None) == (mode == "running")


def use(created: float = 9999, **told: str) -> ModelUse:
    metadata = {"name": "qwen", "namespace": "llm", "creationTimestamp": at(created)}
    return ModelUse.from_object({"metadata": metadata, "status": told})


OLD_MARK = {"cloudach.dev/wake-requested-at": at(9998)}


@pytest.mark.parametrize(
    ("told", "marks", "mode"),
    [
        (use(), {}, "sleeping"),
        (use(wakeRequestedAt=at(5)), {}, "running"),
        (use(wakeRequestedAt=at(5)), {"annotations": OLD_MARK}, "running"),
        (use(wakeRequestedAt=at(700)), {}, "sleeping"),
        (use(lastRequestAt=at(650)), {}, "running"),
        (use(lastRequestAt=at(661)), {}, "sleeping"),
        (use(lastRequestAt=at(900)), {"annotations": {"cloudach.dev/last-request-at": at(650)}}, "running"),
        (use(lastRequestAt="soon"), {}, "sleeping"),
        (use(wakeRequestedAt=at(-3000)), {}, "running"),  # by a clock that is ahead
        (use(wakeRequestedAt="2099-01-01T00:00:00Z", lastRequestAt="2099-01-01T00:00:00Z"), {}, "sleeping"),
        (use(created=599), {}, "running"),  # before that no gateway could say that it is in use
    ],
)
def test_what_gateways_tell_of_its_use(told: ModelUse, marks: dict[str, Any], mode: str) -> None:
    assert demand(model(ZERO, creationTimestamp=at(9999), **marks), NOW, told).mode == mode


def test_a_new_object_for_marks_wakes_no_model() -> None:
    """As in the upgrade that brings these objects, else all sleeping Models would want their GPUs at once."""
    asleep = {"type": "Ready", "status": "False", "reason": "Sleeping", "message": "", "lastTransitionTime": at(100)}
    obj = {
        "metadata": {"name": "m", "namespace": "n", "creationTimestamp": at(9999)},
        "spec": {"source": {"simulator": {}}, **ZERO},
        "status": {"state": "Sleeping", "conditions": [asleep]},
    }
    assert demand(Model.from_object(obj), NOW, use(created=1)).mode == "sleeping"
    assert demand(Model.from_object(obj), NOW, unmade=True).mode == "sleeping"


def test_no_model_sleeps_before_its_object_for_marks_is_made() -> None:
    """Else the controller that makes it would put to sleep whatever is in use."""
    assert demand(model(ZERO, creationTimestamp=at(9999)), NOW, unmade=True).mode == "running"


@pytest.mark.parametrize(
    ("model_s", "use_s", "mode"),
    [
        (9999, 1500, "running"),  # a stream of 960 s at a gateway of the release before, and 600 s of idleness
        (9999, 1600, "sleeping"),
        (1520, 1500, "sleeping"),  # made with its Model: all gateways could tell
    ],
)
def test_streams_at_gateways_that_cannot_tell_of_them_end_first(model_s: float, use_s: float, mode: str) -> None:
    found = demand(model(ZERO, creationTimestamp=at(model_s)), NOW, use(created=use_s), stream_s=960)
    assert found.mode == mode


def test_no_model_sleeps_where_gateways_cannot_tell_of_its_use() -> None:
    found = demand(model(ZERO, creationTimestamp=at(9999)), NOW, untold=True)
    assert (found.mode, found.look_again_s) == ("running", None)


def test_the_idle_time_counts_from_when_the_spec_lets_it_sleep() -> None:
    """Whatever gateways have told before: they tell nothing of a Model that may not sleep."""

    def seen(there: dict[str, Any] | None, seconds: float) -> str:
        since = may_sleep_since(there, NOW + timedelta(seconds=seconds))
        return demand(busy, NOW + timedelta(seconds=seconds), use(lastRequestAt=at(7000)), may_sleep_since=since).mode

    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "ReplicasReady",
        "message": "",
        "lastTransitionTime": at(9000),
    }
    busy = told(model(ZERO, creationTimestamp=at(9999)), state="Ready", replicas=2, conditions=[ready])
    before = made(model({"autoscaling": {"maxReplicas": 4}}))
    assert seen(before, 0) == "running"
    noted = planned(busy, before, since=may_sleep_since(before, NOW)).manifest
    assert (seen(noted, 599), seen(noted, 601)) == ("running", "sleeping")
    # There and back again: what was noted first is over.
    never = planned(model({"autoscaling": {"maxReplicas": 4}}), served(noted)).manifest
    assert seen(never, 5000) == "running"
    # Hands on the note neither stop the looks nor keep it awake.
    for hands in ("2026-11-01", "2026-11-01T11:00:00", "2099-01-01T00:00:00Z", "soon"):
        changed = {"metadata": {"annotations": {"cloudach.dev/may-sleep-since": hands}}}
        assert may_sleep_since(changed, NOW) == NOW
    # A controller that does not find the note wakes nobody.
    asleep = ready | {"status": "False", "reason": "Sleeping"}
    busy = told(busy, state="Sleeping", replicas=0, conditions=[asleep])
    assert seen(before, 0) == "sleeping"


@pytest.mark.parametrize(
    ("state", "ready_since", "woken", "mode"),
    [
        ("Deploying", None, 1700, "running"),  # it takes long to load, and nobody has gone away
        ("Pending", None, 1700, "running"),
        ("Deploying", None, 1900, "sleeping"),  # it will not come up, and holds GPUs
        ("Sleeping", None, 1700, "sleeping"),
        ("Ready", 500, 1700, "running"),  # its time counts from when it could be used
        ("Ready", 700, 1700, "sleeping"),
    ],
)
def test_a_start_is_no_idleness(state: str, ready_since: int | None, woken: int, mode: str) -> None:
    status: dict[str, Any] = {"state": state}
    if ready_since is not None:
        condition = {"type": "Ready", "status": "True", "reason": "R", "message": ""}
        status["conditions"] = [{**condition, "lastTransitionTime": at(ready_since)}]
    marks = {"cloudach.dev/wake-requested-at": at(woken)}
    obj = {
        "metadata": {"name": "m", "namespace": "n", "creationTimestamp": at(9999), "annotations": marks},
        "spec": {"source": {"simulator": {}}, **ZERO},
        "status": status,
    }
    assert demand(Model.from_object(obj), NOW).mode == mode


def test_asleep_and_awake_are_changes_in_place() -> None:
    awake, asleep = model(ZERO, creationTimestamp=at(1)), model(ZERO, creationTimestamp=at(9999))
    done = planned(asleep, made(awake))
    assert done.change == "in place"
    again = planned(awake, done.manifest)
    assert again.change == "in place"
    assert override(again.manifest)["autoscaling_config"]["initial_replicas"] == 2


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        ([{"a": 1, "b": 0}], [{"a": 1}], True),
        ([1, 2], [1], False),
        ("x", {"a": 1}, False),
    ],
)
def test_covers(there: Any, wanted: Any, expected: bool) -> None:
    assert covers(there, wanted) is expected


def test_settings_defaults_are_good() -> None:
    assert parse("") == Settings()


def of_the_release_before(of: Model) -> dict[str, Any]:
    """Its RayService as 0.1.0 made it: no key for the engines, and a token in each worker pod."""
    manifest = made(of, settings="inference: {engine_keys: false, automount_service_account_token: true}")
    pod = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert "automountServiceAccountToken" not in pod
    assert "VLLM_API_KEY" not in json.dumps(pod)
    return manifest


def test_an_upgrade_alone_replaces_no_pods_and_the_next_replacement_locks_them() -> None:
    before = of_the_release_before(model())
    assert planned(model(), before).change == "none"
    scaled = planned(model({"replicas": 5}, generation=2), before)
    assert (scaled.change, scaled.waiting) == ("in place", "")
    assert scaled.manifest is not None
    assert not is_locked(scaled.manifest["spec"]["rayClusterConfig"])
    allowed = {"annotations": {"cloudach.dev/allow-replacement": "always"}}
    done = planned(model({"image": "example.com/engine:2"}, generation=2, **allowed), before)
    assert done.change == "replacement"
    assert done.manifest is not None
    pod = done.manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert is_locked(done.manifest["spec"]["rayClusterConfig"])
    assert pod["automountServiceAccountToken"] is False


def test_the_way_back_to_engines_without_a_key() -> None:
    """As docs/kubernetes.md has it for the release before, whose gateways send none."""
    off = 'inference: {engine_keys: false, env: {ENGINE_KEYS: "off"}}'
    before = made(model())
    word = asked_word(planned(model(), before, settings=off))
    done = planned(model(annotations={"cloudach.dev/allow-replacement": word}), before, settings=off)
    assert done.change == "replacement"
    assert done.manifest is not None
    assert not is_locked(done.manifest["spec"]["rayClusterConfig"])


def test_engines_that_have_a_key_keep_it_when_it_is_switched_off() -> None:
    before = made(model())
    assert is_locked(before["spec"]["rayClusterConfig"])
    assert planned(model(), before, settings="inference: {engine_keys: false}").change == "none"


def test_a_cluster_past_kuberay_gets_its_own_configuration_with_other_counts() -> None:
    app = json.loads(made(model({"engine": {"args": {"seed": 1}}}))["spec"]["serveConfigV2"])["applications"][0]
    # What Serve adds to what it was told changes nothing.
    app["deployments"][0]["added"] = 1

    def caught(spec: dict[str, Any], of: dict[str, Any] = app, **more: Any) -> dict[str, Any] | None:
        wanted = model({"engine": {"args": {"seed": 2}}} | spec)
        return caught_up(of, wanted, demand(wanted, NOW), **({"asked_anew": False, "target": None} | more))

    assert caught({}) is None
    scaled = caught({"replicas": 7})
    assert scaled is not None
    assert scaled["deployments"][0]["autoscaling_config"]["max_replicas"] == 7
    assert {name: value for name, value in scaled.items() if name != "deployments"} == {
        name: value for name, value in app.items() if name != "deployments"
    }
    off = caught({"replicas": 0})
    assert off is not None
    assert off["deployments"][0]["autoscaling_config"]["initial_replicas"] == 0
    assert caught({"replicas": 0}, off) is None
    back = caught({"replicas": 2}, off)
    assert back is not None
    assert back["deployments"][0]["autoscaling_config"]["min_replicas"] == 2
    # Replicas of 0.1.0 that run are not restarted by another way to write their number.
    plain = app | {"deployments": [{"name": "m", "num_replicas": 2}]}
    more = caught({"replicas": 3}, plain)
    assert more is not None
    assert more["deployments"][0]["num_replicas"] == 3
    auto = caught({"autoscaling": {"maxReplicas": 8}})
    assert auto is not None
    assert caught({"autoscaling": {"maxReplicas": 8}}, auto, target=5) is None
    bounds = caught({"autoscaling": {"maxReplicas": 4}}, auto, target=5)
    assert bounds is not None
    assert bounds["deployments"][0]["autoscaling_config"]["initial_replicas"] == 4
    anew = caught({"autoscaling": {"maxReplicas": 8}, "replicas": 6}, auto, asked_anew=True)
    assert anew is not None
    assert anew["deployments"][0]["autoscaling_config"]["initial_replicas"] == 6


@pytest.mark.parametrize("app", [{}, {"deployments": []}, {"deployments": [{}]}, {"deployments": [{"name": "a"}] * 2}])
def test_an_application_that_is_not_ours_is_left_alone(app: dict[str, Any]) -> None:
    assert caught_up(app, model(), demand(model(), NOW), asked_anew=False, target=None) is None

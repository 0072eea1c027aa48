"""What is done about a change, by what it costs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from cloudach_controller.decide.drift import covers
from cloudach_controller.decide.replicas import demand, with_current_options
from cloudach_controller.resources.additions import is_locked
from cloudach_controller.settings import Settings, parse
from cloudach_model_api.model import Model

from .plans import NOW, args, asked_word, fixed, made, model, override, planned, served, told


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
    assert "A number approves nothing." in done.waiting


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
        return with_current_options(of, wanted, demand(wanted, NOW), **({"asked_anew": False, "target": None} | more))

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
    assert with_current_options(app, model(), demand(model(), NOW), asked_anew=False, target=None) is None

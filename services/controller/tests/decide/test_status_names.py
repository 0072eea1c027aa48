"""What the status of a Model says of its names, its adapters, and what belongs to others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cloudach_controller.decide.causes import cause
from cloudach_controller.decide.observation import Observation, Replicas
from cloudach_controller.decide.replicas import demand
from cloudach_controller.decide.status import status
from cloudach_controller.settings import Settings
from cloudach_model_api.claims import Grant, Refusal
from cloudach_model_api.model import AdapterNames, Model

from .observed import NOTHING, NOW, WAS_READY, container, model, pod, replicas, seen, told

OWNER = ("llm", "a")


def served(what: Observation, grant: Grant, of: Model | None = None) -> tuple[str | None, str, tuple[str, ...] | None]:
    """State, what is wrong, and the names that are told."""
    found = status(of or model(), demand(model(), NOW), NOTHING, what, Settings(), now=NOW, grant=grant)
    degraded = found.condition("Degraded")
    assert degraded is not None
    return found.state, f"{degraded.status} {degraded.reason}: {degraded.message}", found.names


def test_a_model_tells_which_names_it_holds_and_who_asks_for_them() -> None:
    adapters = (AdapterNames("sql", ("qwen:sql", "q:sql")),)
    state, wrong, names = served(seen(replicas(2)), Grant(("qwen", "q"), adapters, wanted={"q": OWNER}))
    assert (state, names) == ("Ready", ("qwen", "q", "qwen:sql"))
    assert wrong.startswith("False NameWanted: ")
    assert "llm/a asks for 'q'" in wrong


def test_a_model_whose_id_is_anothers_is_not_served() -> None:
    state, wrong, names = served(seen(), Grant(refused=(Refusal("qwen", OWNER),)))
    assert (state, names) == ("Failed", ())
    assert wrong.startswith("True NameTaken: ")
    assert "'qwen' belongs to llm/a." in wrong


@pytest.mark.parametrize("spec", [{}, {"replicas": 0}])
def test_a_spec_is_not_in_force_where_the_ray_service_is_anothers(spec: dict[str, Any]) -> None:
    others = Observation(None, (), None, foreign="There is a RayService qwen, and it belongs to no Model.")
    state, conditions, found = told(model(spec, {"observedGeneration": 3}), others)
    assert conditions["Progressing"] == "False NotTaken", "nothing is on its way"
    assert conditions["Degraded"] == "True NameTaken"
    assert found.observed_generation == 3
    assert state == ("Off" if spec else "Failed")


def test_a_model_without_its_policy_says_so_also_when_it_is_off() -> None:
    _, conditions, found = told(model({"replicas": 0}), seen(replicas(0), exposed="no right to make policies"))
    assert conditions["Degraded"] == "True RayServiceFailed", "its head is open to everybody"
    assert found.observed_generation == 4, "its spec is in force all the same"


def test_a_model_without_one_of_its_aliases_starts_as_any_other() -> None:
    """It is told of, after whatever else is wrong. Failed would have gateways refuse what they should wait for."""
    grant = Grant(("qwen",), refused=(Refusal("chat", OWNER), Refusal("talk", OWNER)))
    state, wrong, names = served(seen(pods=(pod(),)), grant)
    assert (state, names) == ("Deploying", ("qwen",))
    assert "'chat' belongs to llm/a. Further names that are taken: 1." in wrong
    assert served(seen(replicas(2)), grant)[0] == "Degraded"
    pulling = container(state={"waiting": {"reason": "ImagePullBackOff"}})
    assert served(seen(pods=(pulling,)), grant)[1].startswith("True ImagePullFailed")


ADAPTERS = {"lora": {"adapters": [{"name": n, "source": {"huggingFace": {"repo": "a/b"}}} for n in ("a", "b")]}}


def view(*adapters: str, ready: int = 2, **more: Any) -> Replicas:
    building = more.pop("building", False)
    return replace(replicas(ready, **more), adapters=frozenset(adapters), building=building)


@pytest.mark.parametrize(
    ("before", "what", "loaded"),
    [
        (None, seen(ray_service=None), ()),  # not begun
        ((), seen(view("a", "b", ready=0)), ("a", "b")),  # whoever comes has both
        ((), seen(view("a", "b")), ("a", "b")),
        (("a",), seen(view("a", "b", deployment="UPDATING")), ("a",)),  # old replicas lack the other
        (("a",), seen(view("b", deployment="UPDATING")), ()),
        (("a",), seen(view("a", "b", app="DEPLOYING")), ("a",)),
        (("a",), seen(view("a")), ("a",)),  # Serve has not heard of the other
        (("a",), seen(view("a", "b", ready=0, app="DEPLOYING", building=True)), ("a",)),  # the old ones run on
        (("a", "b"), seen(view("a", "b", "c")), ("a", "b")),  # the spec has it no more
        (("a", "b"), seen(unreachable="no answer"), ("a", "b")),
    ],
)
def test_adapters_count_when_all_replicas_have_them(
    before: tuple[str, ...] | None, what: Observation, loaded: tuple[str, ...]
) -> None:
    old: dict[str, Any] = {**WAS_READY, "adapters": list(before)} if before is not None else {}
    assert told(model(ADAPTERS, old), what)[2].adapters == loaded


def test_an_adapter_waits_for_replicas_that_could_not_be_reached_before() -> None:
    """They count as not ready then, and yet they run, and one of them may be the next to get a request."""
    old = {**WAS_READY, "adapters": ["a"], "readyReplicas": 0}
    assert told(model(ADAPTERS, old), seen(view("a", "b", ready=0, app="DEPLOYING", building=True)))[2].adapters == (
        "a",
    )


def test_a_model_without_adapters_tells_of_none() -> None:
    assert told(model(), seen(view()))[2].adapters is None
    assert told(model(old={"adapters": ["a"]}), seen(view()))[2].adapters == ()


def test_an_adapter_that_cannot_be_loaded_is_named() -> None:
    said = "ray.exceptions.RayTaskError\nAdapterError: LoRA adapter 'sql': o/x: 404 Client Error\n"
    found = cause(seen(replicas(2, app="DEPLOY_FAILED", message=said)))
    assert found is not None
    assert found.reason == "AdapterNotLoaded"
    assert found.message.endswith("LoRA adapter 'sql': o/x: 404 Client Error")

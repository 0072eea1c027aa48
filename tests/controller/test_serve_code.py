"""Which changes of a Model Ray Serve takes for other code, by its own sum: it restarts every replica for those."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudach_controller.decide.plan import plan
from cloudach_controller.decide.replicas import demand
from cloudach_controller.settings import Settings
from cloudach_model_api.model import Model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own fields, as pydantic sees them
    from ray.serve._private.deploy_utils import get_app_code_version
    from ray.serve.schema import ServeApplicationSchema

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SCALING = {"autoscaling": {"maxReplicas": 4}}


def rayservice(spec: dict[str, Any], there: dict[str, Any] | None = None) -> dict[str, Any]:
    """As the controller has it after a look."""
    metadata = {"name": "m", "namespace": "llm", "uid": "u", "generation": 1}
    whole = {"source": {"simulator": {}}, **spec}
    of = Model.from_object({"metadata": metadata, "spec": whole})
    manifest = plan(of, demand(of, NOW), there, Settings(), target=None, now=NOW).manifest or there
    assert manifest is not None
    return manifest


def application(of: dict[str, Any]) -> dict[str, Any]:
    (app,) = json.loads(of["spec"]["serveConfigV2"])["applications"]
    found: dict[str, Any] = app
    return found


def code(of: dict[str, Any]) -> str:
    return str(get_app_code_version(ServeApplicationSchema.model_validate(application(of))))


def as_of_0_1_0(of: dict[str, Any], count: int) -> dict[str, Any]:
    """With the number of replicas as that release wrote it."""
    app = application(of)
    del app["deployments"][0]["autoscaling_config"]
    app["deployments"][0]["num_replicas"] = count
    return {**of, "spec": {**of["spec"], "serveConfigV2": json.dumps({"applications": [app]})}}


CHANGES: dict[str, list[dict[str, Any]]] = {
    "scaled": [{"replicas": 2}, {"replicas": 5}],
    "autoscaling comes and goes": [{"replicas": 2}, {"replicas": 2, **SCALING}, {"replicas": 3}],
    "off and on again": [{"replicas": 2}, {"replicas": 0}, {"replicas": 2}],
    "other bounds": [SCALING, {"autoscaling": {"minReplicas": 2, "maxReplicas": 9, "targetOngoingRequests": 7}}],
    "time to drain": [{"replicas": 2}, {"replicas": 2, "drainSeconds": 7}],
}


@pytest.mark.parametrize("specs", CHANGES.values(), ids=CHANGES)
def test_no_other_code(specs: list[dict[str, Any]]) -> None:
    there = None
    codes = []
    for spec in specs:
        there = rayservice(spec, there)
        codes.append(code(there))
    assert len(set(codes)) == 1


def test_other_arguments_are_other_code() -> None:
    before = rayservice({})
    assert code(rayservice({"engine": {"args": {"rate": 9.0}}}, before)) != code(before)


def test_an_upgrade_from_0_1_0_and_scaling_after_it_are_no_other_code() -> None:
    before = as_of_0_1_0(rayservice({"replicas": 2}), 2)
    upgraded = rayservice({"replicas": 2}, before)
    scaled = rayservice({"replicas": 4}, upgraded)
    assert application(scaled)["deployments"][0]["num_replicas"] == 4
    assert code(before) == code(upgraded) == code(scaled)


def test_a_roll_out_after_an_upgrade_brings_the_newer_form() -> None:
    before = as_of_0_1_0(rayservice({"replicas": 2}), 2)
    rolled = rayservice({"replicas": 2, "engine": {"args": {"rate": 9.0}}}, before)
    assert "num_replicas" not in application(rolled)["deployments"][0]
    later = rayservice({"replicas": 2, "engine": {"args": {"rate": 9.0}}, **SCALING}, rolled)
    assert code(later) == code(rolled)

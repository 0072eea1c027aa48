"""What the controller tells Ray Serve, as far as it goes without Ray."""

from __future__ import annotations

import pytest
from cloudach_inference.serve import RouterMissing, app, build
from pydantic import ValidationError


def test_a_simulator_answers_to_the_models_name() -> None:
    made = app({"engine": "sim", "name": "m", "options": {"rate": 5.0}})
    assert (made.engine, made.model_id, made.options) == ("sim", "m", {"models": ["m"], "rate": 5.0})


def test_vllm_gets_its_options_and_no_autoscaling_of_rays_own() -> None:
    options = {"engine_kwargs": {"a": 1}, "deployment_config": {"request_router_config": {"x": 1}}}
    made = app({"engine": "vllm", "name": "m", "options": options})
    assert made.options["engine_kwargs"] == {"a": 1}
    assert made.options["deployment_config"]["num_replicas"] == 1
    assert made.options["deployment_config"]["request_router_config"] == {"x": 1}


def test_adapters_of_both_engines() -> None:
    lora = {"adapters": [{"name": "a", "folder": "/x"}, {"name": "b", "repo": "o/b"}], "max_rank": 32}
    made = app({"engine": "vllm", "name": "m", "options": {}, "lora": lora})
    assert made.lora is not None
    assert [each["name"] for each in made.lora["adapters"]] == ["a", "b"]
    assert (made.lora["max_rank"], made.lora["max_loaded"]) == (32, 8)
    assert app({"engine": "sim", "name": "m", "options": {}, "lora": {"adapters": [{"name": "a"}]}}).lora is not None


@pytest.mark.parametrize("adapters", [[], [{"name": "a"}], [{"name": "a", "folder": "/x", "repo": "o/a"}]])
def test_weights_need_adapters_that_lie_somewhere(adapters: list[dict[str, str]]) -> None:
    with pytest.raises(ValidationError, match="adapters"):
        app({"engine": "vllm", "name": "m", "options": {}, "lora": {"adapters": adapters}})


@pytest.mark.parametrize("raw", [{"engine": "sim"}, {"engine": "x", "name": "m", "options": {}}, {"replicas": 2}])
def test_wrong_args_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        app(raw)


def test_a_router_whose_package_is_missing_is_said_at_once() -> None:
    """Ray would come up with it, and answer each request with 503."""
    router = {"request_router_class": "ray.serve.llm.request_router:KVAwareRouter"}
    options = {"deployment_config": {"request_router_config": router}}
    with pytest.raises(RouterMissing, match=r"spec\.routing: kvAware needs the package ai-dynamo-runtime"):
        build({"engine": "vllm", "name": "m", "options": options})

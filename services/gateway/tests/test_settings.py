from __future__ import annotations

from pathlib import Path

import pytest
from cloudach_gateway.settings import (
    Adapter,
    ConfigError,
    Failover,
    Kubernetes,
    Limits,
    Listen,
    Model,
    Redis,
    Settings,
    Timeouts,
    Usage,
    load,
    parse,
)

DOCS = Path(__file__).parents[3] / "docs"
MODEL = "models: [{id: m, upstreams: ['http://127.0.0.1:1/v1/']}]\n"


def test_the_example_is_good() -> None:
    assert load(DOCS / "gateway.example.yaml").models[0].aliases == ("llama3-8b",)


def test_every_setting_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text()
    groups = {
        "listen.": Listen,
        "redis.": Redis,
        "limits.": Limits,
        "timeouts.": Timeouts,
        "failover.": Failover,
        "usage.": Usage,
        "kubernetes.": Kubernetes,
        "models[].": Model,
        "models[].adapters[].": Adapter,
    }
    names = [prefix + name for prefix, group in groups.items() for name in group.model_fields]
    names += [name for name in Settings.model_fields if not any(group.startswith(name) for group in groups)]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_an_upstream_may_name_v1_or_not() -> None:
    assert parse(MODEL).models[0].upstreams == ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "models"),
        ("- a", "mapping"),
        ("models: [}", "YAML"),
        ("models: []", "models"),
        ("models: [{id: m, upstreams: ['nope']}]", "models.0.upstreams"),
        ("models: [{id: m, upstreams: []}]", "models.0.upstreams"),
        (MODEL + "timeouts: {connect_s: -1}", "timeouts.connect_s"),
        (MODEL + "timeout: {}", "timeout"),
        (MODEL + "listen: {port: http}", "listen.port"),
        (MODEL + "kubernetes: {namespaces: ['a b']}", "kubernetes.namespaces"),
        (MODEL + "kubernetes: {namespaces: [a, a]}", "named twice"),
        ("models: [{id: m, aliases: [m], upstreams: ['http://a']}]", "used twice"),
        ("models: [{id: m, adapters: [{name: a}, {name: a}], upstreams: ['http://a']}]", "'m:a' is used twice"),
        ("models: [{id: m, adapters: [{name: a, id: m}], upstreams: ['http://a']}]", "'m' is used twice"),
        ("models: [{id: m, adapters: [{name: 'a:b'}], upstreams: ['http://a']}]", "models.0.adapters.0.name"),
    ],
)
def test_a_bad_setting_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        parse(text)


def test_models_of_a_cluster_alone() -> None:
    settings = parse("kubernetes: {enabled: true, namespaces: [serving]}")
    assert settings.kubernetes.namespaces == ("serving",)
    assert not settings.models


def test_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "http://engine:1")
    text = "models: [{id: '${NAME:-m}', upstreams: ['${ENGINE}']}]"
    assert parse(text).models[0].upstreams == ("http://engine:1",)
    assert parse(text).models[0].id == "m"
    monkeypatch.delenv("ENGINE")
    with pytest.raises(ConfigError, match="ENGINE"):
        parse(text)

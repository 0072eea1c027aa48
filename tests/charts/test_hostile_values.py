"""Names and strings that YAML takes for something else, wherever operators may give some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from cloudach_controller import settings as controller_settings
from cloudach_gateway import settings as gateway_settings

from tests.charts.rendered import EVERYTHING
from tests.support.helm import CHART, HelmFailed, Objects, helm

# Each is a valid DNS label, and a number, a boolean or nothing for some reader of YAML.
LABELS = ["0777", "1e3", "12345678", "0x1f", "true", "null", "off", "y", "0b1", "2026-01-01", "0o17"]
# Model ids are free; these are more than labels may be.
IDS = [*LABELS, "1_000", "12:30:00", "~", "=", "<<", ".inf", "-", "- a", "*a", "&a", "!a", "@a", "%a", "a: b", "a #b"]
IDS += ["{a", "[a", "'a", '"a', "|", ">", "?", "`a`", "{{ .Release.Name }}", "$(A)", "\\n", "é", "#"]


def _with(label: str) -> dict[str, Any]:
    """Values that put `label` wherever a name is free."""
    model = EVERYTHING["models"][0] | {"name": label, "namespace": label, "labels": {"team": label}}
    text = {"annotations": {"example.com/a": label}}
    pods = {
        "podLabels": {"pod": label},
        "podAnnotations": {"example.com/p": label},
        "nodeSelector": {"zone": label},
        "extraEnv": [{"name": "EXTRA", "value": label}],
        "priorityClassName": label,
    }
    image = {"repository": "registry/image", "tag": label}
    return EVERYTHING | {
        "nameOverride": label,
        "fullnameOverride": f"n{label}",  # names of Services begin with a letter
        "commonLabels": {"common": label},
        "commonAnnotations": {"example.com/c": label},
        "imagePullSecrets": [{"name": label}],
        "watchNamespaces": [label],
        "models": [model],
        "gateway": {
            **pods,
            **text,
            "image": image,
            "serviceAccount": {"name": label, **text},
            "service": {"clusterIP": label, "loadBalancerSourceRanges": [label], **text},
            "autoscaling": {"kind": "hpa"},
        },
        "controller": {
            **pods,
            **text,
            "image": image,
            "inferenceImage": image,
            "serviceAccount": {"name": label},
            "config": {"ray": {"token_secret": label, "gcs_redis_secret": label}, "inference": {"env": {"A": label}}},
        },
        "valkey": {
            **pods,
            **text,
            "image": image,
            "auth": {"existingSecret": label, "existingSecretKey": label},
            "persistence": {"storageClass": label, "size": label, **text},
            "service": {"clusterIP": label},
        },
        "raystore": {
            **pods,
            **text,
            "auth": {"existingSecret": label, "existingSecretKey": label},
            "persistence": {"storageClass": label, "size": label, **text},
            "service": {"clusterIP": label},
        },
        "ingress": {
            "enabled": True,
            "className": label,
            "hosts": [label],
            "path": f"/{label}",
            "tls": {"enabled": True, "secretName": label, "issuer": label},
        },
        "gatewayApi": {
            "enabled": True,
            "hostnames": [label],
            "gateway": {"create": True, "className": label, "tlsSecretName": label, "clusterIssuer": label},
        },
        "firstKey": {"create": True, "arguments": [label]},
        "monitoring": EVERYTHING["monitoring"]
        | {
            "serviceMonitor": {"enabled": True, "labels": {"release": label}},
            "prometheusRule": {"enabled": True, "alertLabels": {"team": label}, "runbookUrl": label},
            "dashboards": {"enabled": True, "labels": {"grafana": label}, "namespace": label},
        },
        "test": {"model": label},
    }


def _rendered(label: str, values: dict[str, Any]) -> str:
    command = ["template", label, str(CHART), "--namespace", label, "--kube-version", "1.37.0"]
    return helm([*command, "--set", "preflight=false", "--values", "-"], stdin=json.dumps(values))


def _plain(text: str) -> Iterator[str]:
    """Scalars without quotes, which a reader of YAML may take for something else than strings."""
    for event in yaml.parse(text):
        if isinstance(event, yaml.ScalarEvent) and event.style is None:
            yield event.value


@cache
def _harmless() -> str:
    """The chart's own `true` and `null` are plain as well."""
    return _rendered("harmless", _with("harmless"))


@pytest.mark.parametrize("label", LABELS)
def test_every_name_stays_a_string(label: str) -> None:
    text = _rendered(label, _with(label))
    assert list(_plain(text)).count(label) == list(_plain(_harmless())).count(label)
    objects = Objects([one for one in yaml.safe_load_all(text) if one])
    assert len(objects) > 40
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == label
        assert one["metadata"]["labels"]["common"] == label
        assert one["metadata"].get("namespace", label) == label
    (model,) = objects.all("Model")
    assert model["metadata"]["name"] == label


def test_the_check_finds_what_is_not_quoted() -> None:
    assert list(_plain("a: 0777\nb: '0777'")) == ["a", "0777", "b"]


@pytest.mark.parametrize("release", ["0777", "1e3"])
def test_a_numeric_release_name_needs_another_name_for_its_objects(release: str) -> None:
    """The API server refuses Services whose names begin with a digit."""
    with pytest.raises(HelmFailed, match="after the release's name: Services take a-z"):
        _rendered(release, {})
    text = _rendered(release, {"fullnameOverride": "llm"})
    assert f'app.kubernetes.io/instance: "{release}"' in text
    assert release not in list(_plain(text))


def test_settings_in_config_maps_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a template writes as YAML is read by another library, which knows other numbers."""
    monkeypatch.setenv("CLOUDACH_REDIS_URL", "redis://valkey")
    monkeypatch.setenv("CLOUDACH_REDIS_PASSWORD", "pw")
    models = [{"id": name, "upstreams": ["http://engine"], "api_key": name} for name in IDS]
    env = {f"A{number}": name for number, name in enumerate(IDS)}
    values = {"gateway": {"config": {"models": models}}, "controller": {"config": {"inference": {"env": env}}}}
    objects = Objects([one for one in yaml.safe_load_all(_rendered("demo", values)) if one])
    maps = {one["metadata"]["name"]: one["data"] for one in objects.all("ConfigMap")}
    gateway = gateway_settings.parse(maps["demo-cloudach-gateway"]["gateway.yaml"])
    assert [(model.id, model.api_key) for model in gateway.models] == [(name, name) for name in IDS]
    controller = controller_settings.parse(maps["demo-cloudach-controller"]["controller.yaml"])
    assert controller.inference.env == env


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("gateway.image.tag=20260101", "/gateway/image/tag"),
        ("commonLabels.team=7", "/commonLabels/team"),
        ("gateway.podAnnotations.a=true", "/gateway/podAnnotations/a"),
        ("gateway.extraEnv[0].name=A,gateway.extraEnv[0].value=1", "/gateway/extraEnv/0/value"),
    ],
)
def test_a_number_for_a_string_is_refused_by_name_and_set_string_helps(given: str, named: str) -> None:
    """A number from a file may have lost digits by then (`1.10`), so it is not simply taken for a string."""
    command = ["template", "demo", str(CHART), "--set", "preflight=false"]
    with pytest.raises(HelmFailed, match=named.replace("/", "[./]")):
        helm([*command, "--set", given])
    value = given.rpartition("=")[2]
    text = helm([*command, "--set-string", given])
    assert f'"{value}"' in text or f":{value}" in text

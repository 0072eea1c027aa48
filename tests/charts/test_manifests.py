"""What comes out is valid for the API servers of today, and its pods are as closed as they can be."""

from __future__ import annotations

import ssl
from base64 import b64decode
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudach_controller import settings as controller_settings
from cloudach_gateway import redis_address
from cloudach_gateway import settings as gateway_settings
from cloudach_model_api import Model

from tests.charts.rendered import EVERYTHING, MINORS, built_in, everything, workloads
from tests.support.helm import NAMESPACE, VERSION, Objects, pod_template, render
from tests.support.pod_security import violations
from tests.support.release import MODEL_SPEC

"""Groups of custom resources, which are no part of Kubernetes' own schemas."""


def test_the_last_three_minors_are_known() -> None:
    assert MINORS == ["1.35.0", "1.36.0", "1.37.0"]


@pytest.mark.parametrize("minor", MINORS)
def test_objects_are_valid_for(minor: str) -> None:
    """Strictly: an unknown field fails too."""
    objects = built_in(everything(".".join(minor.split(".")[:2])))
    assert {"Deployment", "StatefulSet", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress", "Job"} <= {
        one["kind"] for one in objects
    }
    for one in objects:
        kubernetes_validate.validate(one, minor, strict=True)


def test_the_check_of_objects_finds_an_unknown_field() -> None:
    broken = deepcopy(everything().get("Deployment", "gateway"))
    broken["spec"]["replcas"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, MINORS[-1], strict=True)


def test_models_are_valid() -> None:
    (model,) = everything().all("Model")
    assert Model.from_object(model).spec.replicas == 2


def test_the_gateway_takes_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDACH_REDIS_URL", "redis://valkey:6379/0")
    monkeypatch.setenv("CLOUDACH_REDIS_PASSWORD", "p/w\n")
    models = [{"id": "m", "upstreams": ["http://engine:8000"]}]
    config = {"max_body_bytes": 20971520, "timeouts": {"total_s": 1200}, "models": models}
    values = {"gateway": {"config": config, "processes": 2, "watchModels": False}}
    text = yaml.safe_dump(render(values).config("gateway"))
    taken = gateway_settings.parse(text)
    assert (taken.listen.port, taken.listen.metrics_port, taken.listen.processes) == (8000, 9090, 2)
    assert (taken.max_body_bytes, taken.timeouts.total_s, taken.timeouts.drain_s) == (20971520, 1200, 60)
    assert taken.redis.target == "redis://:p%2Fw%0A@valkey:6379/0"


@pytest.mark.parametrize(("watched", "namespaces"), [(["a", "b"], ("a", "b")), (["*"], ()), ([], (NAMESPACE,))])
def test_gateway_and_controller_watch_the_same(
    monkeypatch: pytest.MonkeyPatch, watched: list[str], namespaces: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CLOUDACH_REDIS_URL", "redis://valkey")
    monkeypatch.setenv("CLOUDACH_REDIS_PASSWORD", "pw")
    objects = render({"watchNamespaces": watched, "gateway": {"config": {"timeouts": {"total_s": 1200}}}})
    gateway = gateway_settings.parse(yaml.safe_dump(objects.config("gateway")))
    controller = controller_settings.parse(yaml.safe_dump(objects.config("controller")))
    assert gateway.kubernetes.enabled
    assert gateway.kubernetes.namespaces == controller.kubernetes.namespaces == namespaces
    assert controller.leader_election.namespace == NAMESPACE
    assert controller.listen.host == "0.0.0.0"
    assert controller.ray.stream_limit_s > gateway.timeouts.total_s, "Ray would cut what the gateway still waits for"


@pytest.mark.parametrize("kind_and_name", [(w["kind"], w["metadata"]["name"]) for w in workloads(everything())])
def test_pods_pass_pod_security_restricted(kind_and_name: tuple[str, str]) -> None:
    pod = pod_template(everything().get(*kind_and_name))["spec"]
    assert violations(pod) == []
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def _pod(**changes: Any) -> dict[str, Any]:
    pod = deepcopy(everything().pod("gateway"))
    container = pod["containers"][0]
    for name, value in changes.items():
        (container if name in ("securityContext", "ports") else pod)[name] = value
    return pod


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"securityContext": {}}, "allowPrivilegeEscalation"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"ports": [{"containerPort": 1, "hostPort": 1}]}, "hostPort"),
    ],
)
def test_the_check_of_pods_finds(changes: dict[str, Any], said: str) -> None:
    assert any(said in found for found in violations(_pod(**changes)))


def test_images_are_pinned() -> None:
    images = [c["image"] for w in workloads(everything()) for c in pod_template(w)["spec"]["containers"]]
    assert len(images) >= 6
    for image in images:
        assert image.rpartition(":")[2] not in ("", "latest")
        assert any(sign.isdigit() for sign in image.rpartition(":")[2])


def test_every_image_can_be_named_by_its_digest() -> None:
    """Those of hooks and tests too, which use the platform's own; and the engines', which its configuration names."""
    digest = "sha256:" + "0" * 64
    image = {"image": {"digest": digest}}
    model = {"name": "m", "spec": {**MODEL_SPEC, "image": f"example.com/engine@{digest}"}}
    values = {
        **EVERYTHING,
        "gateway": {**image, "autoscaling": {"kind": "hpa"}},
        "controller": {**image, "inferenceImage": {"digest": digest}},
        "valkey": image,
        "models": [model],
    }
    objects = render(values)
    pods = [pod_template(workload)["spec"] for workload in workloads(objects)]
    images = [c["image"] for pod in pods for c in [*pod["containers"], *pod.get("initContainers", [])]]
    images += [objects.config("controller")["inference"]["image"], objects.all("Model")[0]["spec"]["image"]]
    assert len(images) >= 8
    assert [image for image in images if not image.endswith(f"@{digest}")] == []
    assert Model.from_object(objects.all("Model")[0]).spec.image == model["spec"]["image"]


def test_valkeys_certificate_is_good_for_the_name_that_gateways_ask(tmp_path: Path) -> None:
    """A handshake as the gateway makes it, from the URL that the chart gives it."""
    objects = render({"valkey": {"tls": {"enabled": True}}})
    files = {name: b64decode(text) for name, text in objects.get("Secret", "valkey-tls")["data"].items()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    url = objects.env("gateway")["CLOUDACH_REDIS_URL"].replace("/etc/valkey-ca", str(tmp_path))
    address = redis_address.parse(url)
    client = address.ssl_context()
    assert client is not None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    ((host, _),) = address.nodes
    assert host == objects.get("Service", "valkey")["metadata"]["name"]
    assert _handshake(server, client, host) == ""
    assert "Hostname mismatch" in _handshake(server, client, "elsewhere")
    assert "certificate verify failed" in _handshake(server, ssl.create_default_context(), host)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """What the client says against it, if anything; without a socket."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return str(error)
    return ""


def test_only_who_asks_the_api_server_has_a_token() -> None:
    with_token = {
        w["metadata"]["labels"]["app.kubernetes.io/component"]
        for w in workloads(everything())
        if pod_template(w)["spec"].get("automountServiceAccountToken", True)
    }
    assert with_token == {"gateway", "controller", "first-key", "delete-models"}


def test_selectors_find_their_pods_and_nothing_else() -> None:
    pods = [pod_template(w)["metadata"]["labels"] for w in workloads(everything())]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment", "StatefulSet"):
        for one in everything().all(kind):
            wanted = one["spec"].get("selector") or one["spec"].get("podSelector")
            if "matchExpressions" in wanted:
                continue  # Ray's pods, which are not the chart's
            wanted = wanted.get("matchLabels", wanted)
            found = [pod for pod in pods if wanted.items() <= pod.items()]
            assert len(found) == 1, (kind, one["metadata"]["name"])


def test_a_change_of_configuration_replaces_the_pods() -> None:
    changes = {"gateway": {"drainSeconds": 61}, "valkey": {"appendfsync": "always"}, "raystore": {"maxMemory": "2gb"}}
    before, after = render({}), render(changes)

    def stamps(objects: Objects) -> list[str]:
        pods = [pod_template(objects.get(kind, part)) for kind, part in PARTS]
        return [pod["metadata"]["annotations"]["checksum/config"] for pod in pods]

    changed = [a != b for a, b in zip(stamps(before), stamps(after), strict=True)]
    assert changed == [True, False, True, True]


PARTS = [
    ("Deployment", "gateway"),
    ("Deployment", "controller"),
    ("StatefulSet", "valkey"),
    ("StatefulSet", "raystore"),
]


def test_older_clusters_get_older_forms() -> None:
    old = render({"gateway": {"autoscaling": {"kind": "hpa"}}}, kube_version="1.20.2")
    assert old.get("HorizontalPodAutoscaler", "gateway")["apiVersion"] == "autoscaling/v2beta2"
    assert old.get("PodDisruptionBudget", "gateway")["apiVersion"] == "policy/v1beta1"
    new = render({"gateway": {"autoscaling": {"kind": "hpa"}}})
    assert new.get("HorizontalPodAutoscaler", "gateway")["apiVersion"] == "autoscaling/v2"
    assert new.get("PodDisruptionBudget", "gateway")["apiVersion"] == "policy/v1"


def test_all_objects_are_in_the_namespace_of_the_release_or_in_none() -> None:
    cluster = {"ClusterRole", "ClusterRoleBinding", "PriorityClass"}
    for one in everything():
        wanted = None if one["kind"] in cluster else NAMESPACE
        assert one["metadata"].get("namespace") == wanted, (one["kind"], one["metadata"]["name"])


def test_a_new_version_of_the_chart_alone_restarts_nothing() -> None:
    """Valkey above all: its pod is the only one."""
    for workload in everything().all("Deployment") + everything().all("StatefulSet"):
        template = deepcopy(pod_template(workload))
        for container in template["spec"]["containers"]:
            container["image"] = container["image"].removesuffix(f":{VERSION}")
        assert VERSION not in yaml.safe_dump(template), workload["metadata"]["name"]

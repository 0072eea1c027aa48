"""The scripts of the chart's Jobs, with the rights that the chart gives them, on a real API server and Valkey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.charts.rights import allowed
from tests.support.helm import CHART, render
from tests.support.processes import BIN
from tests.support.release import MODEL_SPEC, Helm, model
from tests.support.stack import Gateway, Simulator, served_by, start_gateway, start_sim
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

# The files that a pod has at a fixed place are elsewhere here.
RUN = "import sys, pathlib, kube_api, {0}; kube_api._ACCOUNT = pathlib.Path(sys.argv[1]); {0}.main(*sys.argv[2:])"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with start_sim(rate=200) as sim:
        yield sim


@pytest.fixture(scope="module")
def gateway(sim: Simulator) -> Iterator[Gateway]:
    with start_gateway({"models": [served_by(sim)]}) as gateway:
        yield gateway


def job(helm: Helm, account: str, tmp_path: Path, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Starts the script as a pod with that service account would run it."""
    until(lambda: allowed(helm, account, helm.namespace) != {}, within_s=60)  # the API server has heard of its role
    folder = tmp_path / account
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(helm.kubectl("-n", helm.namespace, "create", "token", account).strip())
    (folder / "ca.crt").write_bytes((helm.cluster.home / "pki" / "ca.crt").read_bytes())
    host, _, port = helm.cluster.url.removeprefix("https://").rpartition(":")
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(script), str(folder), *arguments],
        env={
            **os.environ,
            **env,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHART / "files"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "NO_PROXY": "127.0.0.1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FIRST = ("serving", "demo-cloudach-first-key", "--tenant=acme", "--name=first")


def test_the_first_key_works_and_is_made_once(helm: Helm, gateway: Gateway, tmp_path: Path) -> None:
    helm.install({"firstKey": {"create": True}})

    def first_key() -> str:
        config = str(gateway.config_file)
        run = job(helm, "demo-cloudach-first-key", tmp_path, "first_key", *FIRST, CLOUDACH_CONFIG=config)
        out, errors = run.communicate(timeout=200)
        assert run.returncode == 0, errors
        return out

    said = first_key()
    data = helm.get("secret", "demo-cloudach-first-key")["data"]
    key = b64decode(data["key"]).decode()
    assert key not in said, "logs are kept and read by many"
    models = httpx.get(f"{gateway.base_url}/models", headers={"authorization": f"Bearer {key}"})
    assert models.status_code == 200
    assert b64decode(data["tenant"]) == b"acme"

    assert "holds a key already" in first_key()
    assert helm.get("secret", "demo-cloudach-first-key")["data"] == data


def test_the_first_keys_rights_end_at_its_secret(helm: Helm, gateway: Gateway, tmp_path: Path) -> None:
    helm.install({"firstKey": {"create": True}})
    other = ("serving", "demo-cloudach-valkey", *FIRST[2:])
    run = job(helm, "demo-cloudach-first-key", tmp_path, "first_key", *other, CLOUDACH_CONFIG=str(gateway.config_file))
    _, errors = run.communicate(timeout=200)
    assert run.returncode != 0
    assert 'cannot get resource \\"secrets\\"' in errors


def test_a_wrong_argument_is_told_at_once(helm: Helm, gateway: Gateway, tmp_path: Path) -> None:
    helm.install({"firstKey": {"create": True}})
    wrong = (*FIRST, "--requests-per-minute=many")
    run = job(helm, "demo-cloudach-first-key", tmp_path, "first_key", *wrong, CLOUDACH_CONFIG=str(gateway.config_file))
    _, errors = run.communicate(timeout=200)
    assert run.returncode == 1
    assert "--requests-per-minute" in errors


def head(uid_of: str, *, kept: bool = True) -> dict[str, Any]:
    """A head's pod as KubeRay makes it; `kept`: with its state in a store."""
    labels = {"cloudach.dev/model": "tiny", "ray.io/node-type": "head"}
    notes = {"ray.io/ft-enabled": str(kept).lower()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"tiny-head-{uid_of}", "namespace": "serving", "labels": labels, "annotations": notes},
        "spec": {"containers": [{"name": "ray-head", "image": "ray"}], "schedulerName": "nobody"},
    }


def become_ready(helm: Helm, pod: dict[str, Any]) -> None:
    helm.kubectl.apply(pod)
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    with httpx.Client(base_url=helm.cluster.url, verify=helm.cluster.tls) as api:
        path = f"/api/v1/namespaces/serving/pods/{pod['metadata']['name']}/status"
        merge = {"content-type": "application/merge-patch+json"}
        api.patch(path, content=json.dumps(status), headers=merge).raise_for_status()


@pytest.mark.parametrize("breaks", [False, True])
def test_a_head_is_lost_under_streams_and_one_that_breaks_is_told(
    helm: Helm, sim: Simulator, gateway: Gateway, tmp_path: Path, breaks: bool
) -> None:
    """There is no KubeRay: another head is made by the test."""
    helm.install({"test": {"loseHead": "tiny"}})
    become_ready(helm, head("old"))
    env = {"GATEWAY_URL": gateway.url, "MODEL": "sim", "TIMEOUT_S": "120", "CLOUDACH_CONFIG": str(gateway.config_file)}
    run = job(helm, "demo-cloudach-test", tmp_path, "lose_head", "serving", "tiny", **env)
    try:
        until(lambda: helm.get("pods", "-l", "ray.io/node-type=head")["items"] == [], within_s=100)
        if breaks:
            sim.arm("http:500", times=None)
            until(lambda: sim.stats()["running"] == 0, within_s=60)  # what ran has ended, and the next ones are refused
        become_ready(helm, head("new"))
        out, errors = run.communicate(timeout=200)
    finally:
        run.kill()
        sim.reset()
        helm.kubectl("-n", "serving", "delete", "pods", "-l", "ray.io/node-type=head", "--now")
    assert (run.returncode == 0) is not breaks, errors
    assert "ran on without their head" in out or "streams broke when the head was lost" in errors


def test_a_head_that_keeps_its_state_nowhere_is_left_alone(helm: Helm, gateway: Gateway, tmp_path: Path) -> None:
    helm.install({"test": {"loseHead": "tiny"}})
    become_ready(helm, head("old", kept=False))
    env = {"GATEWAY_URL": gateway.url, "MODEL": "sim", "TIMEOUT_S": "60", "CLOUDACH_CONFIG": str(gateway.config_file)}
    run = job(helm, "demo-cloudach-test", tmp_path, "lose_head", "serving", "tiny", **env)
    _, errors = run.communicate(timeout=200)
    assert run.returncode != 0
    assert "keeps no state in a store" in errors
    assert len(helm.get("pods", "-l", "ray.io/node-type=head")["items"]) == 1
    helm.kubectl("-n", "serving", "delete", "pods", "-l", "ray.io/node-type=head", "--now")


SELECTOR = (
    "app.kubernetes.io/instance=demo,app.kubernetes.io/managed-by=Helm,app.kubernetes.io/component=model"
)  # fmt: skip


def test_models_of_the_release_are_deleted_and_waited_for(helm: Helm, tmp_path: Path) -> None:
    """As before an uninstall: the controller's finalizer holds a Model until its streams have ended."""
    helm.install({"models": [{"name": "m", "spec": MODEL_SPEC}]})
    kubectl = helm.kubectl
    hooks = helm.cluster.kubectl("-n", "serving", "get", "serviceaccounts", "-o", "name")
    assert "delete-models" not in hooks, "it is a hook, made before the uninstall"
    install_hook_objects(helm)
    kubectl.apply(model("by-hand"))
    finalizer = '{"metadata": {"finalizers": ["cloudach.dev/drain"]}}'
    kubectl("-n", "serving", "patch", "model", "m", "--type=merge", "-p", finalizer)

    run = job(helm, "demo-cloudach-delete-models", tmp_path, "delete_models", SELECTOR, "serving")
    assert run.stdout is not None
    assert run.stdout.readline() == "deleting serving/m; its streams may end first\n"
    kubectl("-n", "serving", "wait", "model/m", "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=120s")
    assert run.poll() is None, "it waits for the drain"
    kubectl("-n", "serving", "patch", "model", "m", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    _, errors = run.communicate(timeout=200)
    assert run.returncode == 0, errors
    left = [one["metadata"]["name"] for one in helm.get("models")["items"]]
    assert left == ["by-hand"]
    kubectl("-n", "serving", "delete", "model", "by-hand")


def install_hook_objects(helm: Helm) -> None:
    """What helm makes right before the uninstall, but for the Job itself, which no node would run here."""
    hooks = render({"models": [{"name": "m", "spec": MODEL_SPEC}]})
    hooks = [one for one in hooks if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"]
    assert sorted(one["kind"] for one in hooks) == ["ConfigMap", "Job", "ServiceAccount"]
    helm.kubectl.apply(*[one for one in hooks if one["kind"] == "ServiceAccount"])


def test_the_namespace_of_a_model_that_was_deleted_stops_no_uninstall(helm: Helm, tmp_path: Path) -> None:
    """Its Role went with it, and helm can make nothing in it."""
    elsewhere = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}
    helm.kubectl.apply(elsewhere)
    models = [{"name": "m", "spec": MODEL_SPEC}, {"name": "m", "namespace": "elsewhere", "spec": MODEL_SPEC}]
    helm.install({"models": models, "watchNamespaces": ["serving", "elsewhere"]})
    for one in ("model/m", "roles", "rolebindings"):
        helm.kubectl("-n", "elsewhere", "delete", one, *(["--all"] if "/" not in one else []))
    helm.kubectl("delete", "namespace", "elsewhere", "--wait=false")
    end = {**elsewhere, "spec": {"finalizers": []}}  # no controller does it here
    helm.kubectl("replace", "--raw", "/api/v1/namespaces/elsewhere/finalize", "-f", "-", stdin=json.dumps(end))
    install_hook_objects(helm)
    run = job(helm, "demo-cloudach-delete-models", tmp_path, "delete_models", SELECTOR, "serving", "elsewhere")
    out, errors = run.communicate(timeout=200)
    assert run.returncode == 0, errors
    assert "deleting serving/m" in out
    assert "left out elsewhere: it was deleted" in out
    assert helm.get("models")["items"] == []
    helm.uninstall()
    assert helm.names() == {"ServiceAccount/demo-cloudach-delete-models"}, "the hook's own, which helm takes away"


@pytest.mark.parametrize(("drain_s", "patience_s"), [(60, 840), (7200, 7320)])
def test_the_job_waits_longer_than_any_stream(drain_s: int, patience_s: int) -> None:
    hooks = render({"models": [{"name": "m", "spec": {**MODEL_SPEC, "drainSeconds": drain_s}}]})
    (found,) = [one for one in hooks if one["kind"] == "Job"]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert {"name": "PATIENCE_S", "value": str(patience_s)} in container["env"]
    assert found["spec"]["activeDeadlineSeconds"] == patience_s + 60

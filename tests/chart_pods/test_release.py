"""The chart as pods: ready under their restricted contexts, upgraded under load, tested by helm, gone after uninstall.

In the order in which they stand: an installation's life.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chart_pods.conftest import CRDS_APART, VERSIONS, WAIT, objects
from tests.chart_pods.node import NAMESPACE, Node
from tests.chart_pods.ray_pods import WORKER, RayPods
from tests.support.helm import CHART
from tests.support.kubectl import CommandFailed, await_kinds
from tests.support.release import CRDS
from tests.support.waiting import until

LOAD = Path(__file__).with_name("load.py")
STREAMS = 20
PYTHON = "/opt/cloudach/bin/python"
PARTS = ("gateway", "controller", "valkey")
WORKLOADS = (
    "deployment/demo-cloudach-gateway",
    "deployment/demo-cloudach-controller",
    "statefulset/demo-cloudach-valkey",
)
CLOUDACH = ("exec", "deployment/demo-cloudach-gateway", "--", "cloudach")

pytestmark = pytest.mark.timeout(1800)


def exec_python(node: Node, target: str, code: str) -> str:
    return node.kubectl("exec", target, "--", PYTHON, "-c", code)


def pods_of(node: Node, part: str) -> list[dict[str, Any]]:
    """Those that are not on their way out."""
    labels = f"app.kubernetes.io/instance=demo,app.kubernetes.io/component={part}"
    pods = node.get("pods", "-l", labels)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def uids(node: Node, part: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods_of(node, part)}


def ready(node: Node, part: str) -> list[bool]:
    statuses = [pod["status"].get("containerStatuses", []) for pod in pods_of(node, part)]
    return [bool(of) and all(status["ready"] for status in of) for of in statuses]


def images(node: Node) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for part in ("gateway", "controller") for pod in pods_of(node, part)}


def expected_images(version: str) -> set[str]:
    return {f"ghcr.io/cloudach/{part}:{version}" for part in ("gateway", "controller")}


def test_pods_are_ready(node: Node, release: dict[str, Any]) -> None:
    expected = {"gateway": [True, True], "controller": [True, True], "valkey": [True]}
    try:
        until(
            lambda: {part: ready(node, part) for part in PARTS} == expected, within_s=180
        )  # helm waits for fewer of them
    except TimeoutError:
        pytest.fail(node.tell())
    assert images(node) == expected_images(VERSIONS[0])


@pytest.mark.parametrize("target", WORKLOADS)
def test_a_pod_is_as_closed_as_it_says(node: Node, release: dict[str, Any], target: str) -> None:
    told = exec_python(node, target, "import os; print(os.getuid(), open('/proc/self/status').read())")
    uid, _, status = told.partition(" ")
    assert int(uid) != 0
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    with pytest.raises(CommandFailed, match="Read-only file system"):
        exec_python(node, target, "open('/opt/cloudach/x', 'w')")


def test_the_first_key_is_in_its_secret(node: Node, release: dict[str, Any]) -> None:
    data = node.get("secret", "demo-cloudach-first-key")["data"]
    (key,) = json.loads(node.kubectl(*CLOUDACH, "keys", "list", "--json"))
    assert (key["tenant"], key["id"]) == ("acme", b64decode(data["id"]).decode())
    assert b64decode(data["key"]).decode().startswith("sk-")


def test_the_controller_acts_on_the_model(node: Node, release: dict[str, Any]) -> None:
    """With the rights of its service account. KubeRay's part is nobody's here."""
    until(lambda: node.get("rayservices")["items"] != [], within_s=180)
    assert node.get("rayservice", "tiny")["metadata"]["ownerReferences"][0]["kind"] == "Model"
    # The status is written after it.
    until(lambda: node.get("model", "tiny").get("status", {}).get("observedGeneration") == 1, within_s=180)


def upgrade(node: Node, values: dict[str, Any]) -> None:
    flags = ("--values", "-", *WAIT)
    try:
        node.helm("upgrade", "demo", CHART, *flags, stdin=json.dumps(values))
    except CommandFailed as error:
        pytest.fail(f"{error}\n{node.tell()}")


def test_an_upgrade_from_the_release_before_breaks_no_stream(
    node: Node, release: dict[str, Any], addresses: dict[str, str]
) -> None:
    """With every pod replaced under load, what was scaled by hand kept, and the store of Ray's state beside it."""
    node.kubectl("scale", "model/tiny", "--replicas=3")
    earlier = {part: uids(node, part) for part in PARTS}
    made = node.kubectl(*CLOUDACH, "keys", "create", "--tenant=load", "--json")
    url = f"http://{release['gateway']['service']['clusterIP']}/v1"
    load = node.start(sys.executable, LOAD, url, json.loads(made)["key"], "sim", str(STREAMS))
    assert load.stdout is not None
    try:
        assert load.stdout.readline() == "running\n"
        old = ("--disable-openapi-validation",) if node.minor() < 28 else ()
        node.helm("upgrade", "cloudach-crds", CRDS, *CRDS_APART, *old)
        await_kinds(node.kubectl, "modeluses.cloudach.dev")
        release["raystore"] = {
            "resources": release["valkey"]["resources"],
            "service": {"clusterIP": addresses["demo-cloudach-raystore"]},
        }
        engines = {"id": "heads", "upstreams": [f"http://{addresses[WORKER]}:8000"], "upstream_model": "tiny"}
        release["gateway"]["config"]["models"].append(engines)
        upgrade(node, release)
        until(lambda: not any(earlier[part] & uids(node, part) for part in ("gateway", "controller")), within_s=300)
        out, _ = load.communicate(timeout=300)
    finally:
        load.kill()
    result = json.loads(out.splitlines()[-1])
    assert result["broken"] == [], node.tell()
    assert result["finished"] >= STREAMS
    assert images(node) == expected_images(VERSIONS[1])
    assert node.get("model", "tiny")["spec"]["replicas"] == 3


def test_helm_test_passes(node: Node, release: dict[str, Any]) -> None:
    """Its pod finds each gateway by the headless Service's name, which stands in /etc/hosts here."""
    addresses = [
        {"ip": pod["status"]["podIP"], "hostnames": ["demo-cloudach-gateway-metrics"]}
        for pod in pods_of(node, "gateway")
    ]
    release["test"]["hostAliases"] = [*addresses, *release["gateway"]["hostAliases"]]
    upgrade(node, release)
    try:
        said = node.helm("test", "demo", "--logs", "--timeout", "6m")
    except CommandFailed as error:
        pytest.fail(f"{error}\n{node.tell()}")
    assert "helm test: good" in said


def test_keys_outlive_valkeys_pod(node: Node, release: dict[str, Any]) -> None:
    listing = (*CLOUDACH, "keys", "list", "--json")
    before = {key["id"] for key in json.loads(node.kubectl(*listing))}
    old = uids(node, "valkey")
    node.kubectl("delete", "pod", "demo-cloudach-valkey-0")
    # The StatefulSet's own status may still be of the pod before.
    until(lambda: not old & uids(node, "valkey") and ready(node, "valkey") == [True], within_s=300)
    found: set[str] = set()

    def answered() -> bool:
        """Once the way to its Service is that to the new pod."""
        try:
            found.update(key["id"] for key in json.loads(node.kubectl(*listing)))
        except CommandFailed:
            return False
        return True

    until(answered, within_s=180)
    assert found == before != set()


def test_the_store_of_rays_state_lets_each_model_in_and_is_as_closed_as_it_says(
    node: Node, release: dict[str, Any]
) -> None:
    """The Model's cluster never served, so the upgrade has made it anew, with the user that the controller made."""
    code = (
        "import os, redis; admin = redis.Redis(password=os.environ['RAYSTORE_PASSWORD'], decode_responses=True);"
        "print(' '.join(admin.acl_users()))"
    )
    until(lambda: f"{NAMESPACE}.tiny." in exec_python(node, "statefulset/demo-cloudach-raystore", code), within_s=180)
    assert set(node.get("secret", "cloudach-gcs-store")["data"]) == {"tiny"}
    options = node.get("rayservice", "tiny")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisUsername"]["value"].startswith(f"{NAMESPACE}.tiny.")
    test_a_pod_is_as_closed_as_it_says(node, release, "statefulset/demo-cloudach-raystore")


def test_a_lost_head_breaks_and_refuses_nothing(node: Node, release: dict[str, Any], addresses: dict[str, str]) -> None:
    """Ray's real GCS with the chart's store, under streams that nobody asks for twice. KubeRay's part is the test's."""
    if not node.is_this_machine():
        pytest.skip("LEFT OUT, Ray's programs are mounted from this machine: the node has to be on it")
    with RayPods(node, "tiny", addresses) as ray:
        try:
            ray.begin()
            until(lambda: worked(ray.serve), within_s=300)
            until(lambda: worked(lambda: [one["state"] for one in ray.replicas()] == ["RUNNING"]), within_s=300)
            until(ray.answers, within_s=60)
            lose_a_head(node, ray, f"http://{release['gateway']['service']['clusterIP']}/v1")
        except TimeoutError as error:
            pytest.fail(f"{error}\n{node.tell()}")


def lose_a_head(node: Node, ray: RayPods, url: str) -> None:
    before, worker = ray.replicas(), ray.worker()
    made = node.kubectl(*CLOUDACH, "keys", "create", "--tenant=heads", "--json")
    load = node.start(sys.executable, LOAD, url, json.loads(made)["key"], "heads", "10")
    assert load.stdout is not None
    try:
        assert load.stdout.readline() == "running\n"
        ray.lose_head()
        assert load.stdout.readline() == "again\n", "streams begin while there is no head"
        ray.make_head()
        until(lambda: worked(lambda: ray.replicas() == before), within_s=300)
        out, _ = load.communicate(timeout=300)
    finally:
        load.kill()
    result = json.loads(out.splitlines()[-1])
    assert result["broken"] == [], node.tell()
    assert result["finished"] > 10
    assert ray.worker() == worker


def worked(ask: Callable[[], Any]) -> bool:
    """Whether the head answers, and well."""
    try:
        return ask() is not False
    except CommandFailed:
        return False


def test_uninstall_leaves_what_the_notes_say(node: Node, release: dict[str, Any], before: set[str]) -> None:
    """Its own Models are gone with their RayServices: a Job deletes them, and the controller finishes it."""
    node.helm("uninstall", "demo", "--wait", "--timeout", "10m")
    expected = {
        "PersistentVolumeClaim/data-demo-cloudach-valkey-0",
        "PersistentVolumeClaim/data-demo-cloudach-raystore-0",
        "Secret/cloudach-gcs-store",
        "Secret/cloudach-engine-keys",
        "Lease/cloudach-controller",
        "Lease/cloudach-models",
        "Secret/cloudach-ray-token",
        "Secret/cloudach-ray-seed",
        "Pod/demo-cloudach-test",
    }
    try:
        until(
            lambda: objects(node) - before == expected, within_s=300
        )  # pods drain, and the garbage collector is not helm
    except TimeoutError:
        assert objects(node) - before == expected
    assert before <= objects(node)

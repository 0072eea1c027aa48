"""The chart as pods: ready under their restricted contexts, tested by helm, upgraded under load, gone after uninstall.

In the order in which they stand: an installation's life.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.charts.cluster import within
from tests.cluster.node import Node
from tests.support.helm import CHART
from tests.support.kubectl import CommandFailed

LOAD = Path(__file__).with_name("load.py")
STREAMS = 20
PYTHON = "/opt/cloudach/bin/python"

pytestmark = pytest.mark.timeout(600)


def exec_python(node: Node, target: str, code: str) -> str:
    return node.kubectl("exec", target, "--", PYTHON, "-c", code)


def test_pods_are_ready(node: Node, release: dict[str, Any]) -> None:
    ready = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: all(
            status["ready"] for status in pod["status"]["containerStatuses"]
        )
        for pod in node.get("pods", "-l", "app.kubernetes.io/instance=demo,app.kubernetes.io/component!=test")["items"]
    }
    assert ready == {"gateway": True, "valkey": True}, node.tell()


@pytest.mark.parametrize("target", ["deployment/demo-cloudach-gateway", "statefulset/demo-cloudach-valkey"])
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
    listed = node.kubectl("exec", "deployment/demo-cloudach-gateway", "--", "cloudach", "keys", "list", "--json")
    (key,) = json.loads(listed)
    assert (key["tenant"], key["id"]) == ("acme", b64decode(data["id"]).decode())
    assert b64decode(data["key"]).decode().startswith("sk-")


def test_helm_test_passes(node: Node, release: dict[str, Any]) -> None:
    """Its pod finds each gateway by the headless Service's name, which stands in /etc/hosts here."""
    pods = node.get("pods", "-l", "app.kubernetes.io/component=gateway")["items"]
    addresses = [{"ip": pod["status"]["podIP"], "hostnames": ["demo-cloudach-gateway-metrics"]} for pod in pods]
    release["test"] = {"hostAliases": [*addresses, *release["gateway"]["hostAliases"]]}
    upgrade(node, release)
    try:
        said = node.helm("test", "demo", "--logs", "--timeout", "2m")
    except CommandFailed as error:
        pytest.fail(f"{error}\n{node.tell()}")
    assert "helm test: good" in said


def upgrade(node: Node, values: dict[str, Any]) -> None:
    flags = ("--values", "-", "--wait", "--timeout", "5m")
    node.helm("upgrade", "demo", str(CHART), *flags, stdin=json.dumps(values), timeout_s=330)


def test_an_upgrade_under_load_breaks_no_stream(node: Node, release: dict[str, Any]) -> None:
    before = gateways(node)
    made = node.kubectl(
        *("exec", "deployment/demo-cloudach-gateway", "--", "cloudach", "keys", "create", "--tenant=load", "--json")
    )
    url = f"http://{release['gateway']['service']['clusterIP']}/v1"
    load = node.start(sys.executable, LOAD, url, json.loads(made)["key"], "sim", str(STREAMS))
    assert load.stdout is not None
    try:
        assert load.stdout.readline() == "running\n"
        release["gateway"]["drainSeconds"] = 45
        upgrade(node, release)
        out, _ = load.communicate(timeout=120)
    finally:
        load.kill()
    result = json.loads(out)
    assert result["broken"] == [], node.tell()
    assert result["finished"] >= STREAMS
    assert not before & gateways(node), "every gateway was replaced"


def gateways(node: Node) -> set[str]:
    """Of those that are not on their way out."""
    pods = node.get("pods", "-l", "app.kubernetes.io/component=gateway")["items"]
    return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def test_keys_outlive_valkeys_pod(node: Node, release: dict[str, Any]) -> None:
    listing = ("exec", "deployment/demo-cloudach-gateway", "--", "cloudach", "keys", "list", "--json")
    before = {key["id"] for key in json.loads(node.kubectl(*listing))}
    node.kubectl("delete", "pod", "demo-cloudach-valkey-0")
    node.kubectl("rollout", "status", "statefulset/demo-cloudach-valkey", "--timeout=120s", timeout_s=130)
    assert {key["id"] for key in json.loads(node.kubectl(*listing))} == before != set()


def test_uninstall_leaves_valkeys_volume_alone(node: Node, release: dict[str, Any]) -> None:
    """And the pod of helm test, as the notes say."""
    node.helm("uninstall", "demo", "--wait", "--timeout", "3m")
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,ingresses"
    expected = {"PersistentVolumeClaim/data-demo-cloudach-valkey-0", "Pod/demo-cloudach-test"}

    def left() -> set[str]:
        items = node.get(f"{kinds},persistentvolumeclaims", "-l", "app.kubernetes.io/instance=demo")["items"]
        return {f"{one['kind']}/{one['metadata']['name']}" for one in items}

    try:
        within(90, lambda: left() == expected)  # pods drain, and the garbage collector is not helm
    except TimeoutError:
        assert left() == expected

"""helm install, upgrade and uninstall on a real API server, with its real RBAC."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from cloudach_controller import settings as controller_settings
from cloudach_controller.resources.network import policies
from cloudach_model_api import Model

from tests.charts.rights import CONTROLLER, GATEWAY, LEASE, allowed, everywhere, may
from tests.support.kubectl import CommandFailed, Kubectl, await_kinds
from tests.support.release import MODEL_SPEC, Helm, kuberay_operator, model, rayservice_crd
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server

MODEL = {"name": "m", "spec": MODEL_SPEC}


def test_without_kuberay_nothing_is_installed(helm: Helm) -> None:
    helm.kubectl("delete", "crd", "rayservices.ray.io")
    try:
        # While the kind goes, the server names a group that it does not serve: an error of kubectl's.
        asked = ("api-resources", "--api-group=ray.io", "-o", "name")
        until(lambda: (done := helm.kubectl.run(*asked)).returncode == 0 and done.stdout == "", within_s=180)
        with pytest.raises(CommandFailed, match=r"does not know ray\.io/v1/RayService: install KubeRay"):
            helm.install()
        assert helm.names() == set()
    finally:
        helm.kubectl.apply(rayservice_crd())
        await_kinds(helm.kubectl, "rayservices.ray.io")


def test_where_kuberay_is_the_policies_have_to_say(helm: Helm) -> None:
    """Or its operator would be shut out, and no Model would start."""
    _, operator = kuberay_operator()
    helm.kubectl("-n", "kuberay", "delete", "deployment", "kuberay-operator")
    try:
        with pytest.raises(CommandFailed, match=r"not in the namespace kuberay: .* networkPolicy\.kuberayFrom"):
            helm.install()
        helm.kubectl.apply(*kuberay_operator("elsewhere"))
        with pytest.raises(CommandFailed, match=r"runs in the namespace elsewhere, and .*kuberayNamespace is kuberay"):
            helm.install()
        assert helm.names() == set()
        helm.install({"networkPolicy": {"kuberayNamespace": "elsewhere"}})
        with pytest.raises(CommandFailed, match="runs in the namespace elsewhere"):
            helm.upgrade({"networkPolicy": {"kuberayNamespace": "kuberay"}})
        for not_asked in ({"kuberayFrom": [{"podSelector": {}}]}, {"enabled": False}):
            helm.upgrade({"networkPolicy": not_asked})
    finally:
        helm.kubectl("-n", "elsewhere", "delete", "deployment", "kuberay-operator", "--ignore-not-found")
        helm.kubectl.apply(operator)


def test_the_policies_of_models_outlive_the_release(helm: Helm) -> None:
    """The controller makes them, which is not here, but its rights are: each belongs to its Model and bears no label of
    the release."""
    helm.install()
    helm.kubectl.apply(model("by-hand"))
    there = helm.get("model", "by-hand")
    there["apiVersion"], there["kind"] = "cloudach.dev/v1alpha1", "Model"
    settings = controller_settings.parse(helm.get("configmap", "demo-cloudach-controller")["data"]["controller.yaml"])
    made = policies(Model.from_object(there), settings)
    controller = helm.as_account("demo-cloudach-controller")
    until(lambda: allowed(helm, "demo-cloudach-controller", "serving") != {}, within_s=60)
    for one in made:
        controller("create", "-f", "-", stdin=json.dumps(one))
    names = {one["metadata"]["name"] for one in made}
    assert names == {"by-hand.head", "by-hand.engines"}
    for values in ({"watchNamespaces": ["*"]}, {"watchNamespaces": ["default"]}):
        helm.upgrade(values)
        assert names <= {one["metadata"]["name"] for one in helm.get("networkpolicies")["items"]}
    helm.uninstall()
    assert {one["metadata"]["name"] for one in helm.get("networkpolicies")["items"]} == names
    helm.kubectl("-n", "serving", "delete", "model", "by-hand")
    # The garbage collector, which takes what belongs to a Model that is gone, is none of an API server's own.
    helm.kubectl("-n", "serving", "delete", "networkpolicies", *names)


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("rediss://user:p:1234@node-a:7001/0?x=:99", [6379, 6380, 26379, 7001]),
        # Their nodes say where further ones are, on ports that no URL has.
        ("redis+cluster://user:p@node-a:7001,[fd00::7]:7002", None),
        ("rediss+sentinel://node-a:26379/mymaster", None),
    ],
)
def test_gateways_may_reach_the_ports_of_their_own_redis(helm: Helm, url: str, ports: list[int] | None) -> None:
    """As its Secret has them: a release that ran before must not lose its Redis to a policy."""
    helm.kubectl("-n", "serving", "create", "secret", "generic", "mine", f"--from-literal=redis-url={url}")
    try:
        own = {"existingSecret": "mine", "existingSecretKey": "redis-url"}
        helm.install({"valkey": {"enabled": False}, "redis": own})
        rules = helm.get("networkpolicy", "demo-cloudach-gateway")["spec"]["egress"]
        anywhere = [rule for rule in rules if {"namespaceSelector": {}} in rule.get("to", ())]
        assert [[port["port"] for port in rule["ports"]] if "ports" in rule else None for rule in anywhere] == [ports]
    finally:
        helm.kubectl("-n", "serving", "delete", "secret", "mine")


def test_install_makes_what_the_notes_speak_of(helm: Helm) -> None:
    notes = helm.install({"models": [MODEL]})
    assert {
        "Deployment/demo-cloudach-gateway",
        "Deployment/demo-cloudach-controller",
        "StatefulSet/demo-cloudach-valkey",
        "StatefulSet/demo-cloudach-raystore",
        "Model/m",
        "Service/demo-cloudach-gateway",
    } <= helm.names()
    assert "kubectl -n serving exec deployment/demo-cloudach-gateway -c gateway -- cloudach keys create" in notes
    assert "kubectl -n serving port-forward service/demo-cloudach-gateway 8080:80" in notes
    assert "data-demo-cloudach-valkey-0" in notes
    assert "data-demo-cloudach-raystore-0" in notes
    assert "engines of those that are left end ten minutes later" in notes


def test_an_installer_needs_no_rights_in_the_whole_cluster(helm: Helm) -> None:
    """Those of the docs: all in the release's namespace, and to list Deployments where KubeRay is."""
    user = "installer"
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    deployments = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}
    for namespace, rule in (("serving", everything), ("kuberay", deployments)):
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": user, "namespace": namespace}}
        to = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]
        helm.kubectl.apply(
            {**kind, "kind": "Role", "rules": [rule]},
            {**kind, "kind": "RoleBinding", "roleRef": to, "subjects": subjects},
        )
    try:
        installer = Kubectl(helm.cluster.kubeconfig, user)
        until(lambda: installer.run("-n", "kuberay", "get", "deployments").returncode == 0, within_s=60)
        until(lambda: installer.run("-n", "serving", "get", "roles").returncode == 0, within_s=60)
        alone = {"clusterRole": False, "aggregate": False}
        helm.install({"rbac": alone}, f"--kube-as-user={user}")
        # Roles of others, and Models elsewhere, where an installer may see nothing.
        values = {"rbac": {**alone, "create": False}, "watchNamespaces": ["serving", "default"]}
        for _ in range(2):
            helm.upgrade(values, f"--kube-as-user={user}")
    finally:
        for namespace in ("serving", "kuberay"):
            helm.kubectl("-n", namespace, "delete", "role,rolebinding", user)


def test_a_second_release_over_the_same_namespace_is_refused(helm: Helm) -> None:
    """Their controllers would undo each other's work without end."""
    helm.install()
    with Helm(helm.cluster, "second") as second:
        values = {"fullnameOverride": "second", "watchNamespaces": ["second", "serving"]}
        with pytest.raises(CommandFailed, match="in the namespace serving are served by the release demo of the names"):
            second.install(values)
        assert second.names() == set()
        second.install({**values, "watchNamespaces": ["second"]})
        with pytest.raises(CommandFailed, match="in the namespace serving are served by the release demo of the names"):
            second.upgrade(values)
        with pytest.raises(CommandFailed, match="are served by the release demo of the namespace serving already"):
            second.upgrade({**values, "watchNamespaces": ["*"]})
        helm.upgrade()  # itself is no other


def test_a_wrong_model_is_refused_by_its_field(helm: Helm) -> None:
    with pytest.raises(CommandFailed, match="additional properties 'replcas' not allowed"):
        helm.install({"models": [{"name": "m", "spec": {**MODEL_SPEC, "replcas": 2}}]})
    assert helm.names() == set()


def test_uninstall_leaves_what_the_notes_say(helm: Helm) -> None:
    notes = helm.install({"firstKey": {"create": True}, "monitoring": {"dashboards": {"enabled": True}}})
    helm.kubectl.apply(model("by-hand"))
    assert "keeps the CRDs" in notes
    for left in ("lease/cloudach-models", "cloudach-ray-seed", "cloudach-ray-token", "cloudach-gcs-store"):
        assert left in notes
    helm.uninstall()
    assert helm.names() == set()
    assert helm.get("model", "by-hand")["spec"]["replicas"] == 2
    assert helm.get("crd", "models.cloudach.dev")
    for kind in ("clusterroles", "clusterrolebindings"):
        assert helm.get(kind, "-l", "app.kubernetes.io/instance=demo")["items"] == []
    helm.kubectl("-n", "serving", "delete", "model", "by-hand")


@pytest.mark.parametrize(("account", "rights"), [("gateway", GATEWAY), ("controller", CONTROLLER | LEASE)])
def test_rights_are_what_is_needed_and_nothing_more(helm: Helm, account: str, rights: dict[str, Any]) -> None:
    helm.install()
    if account == "controller":
        rights = everywhere("serving") | rights
    may(helm, f"demo-cloudach-{account}", "serving", rights)
    elsewhere = everywhere("serving") if account == "controller" else {}
    may(helm, f"demo-cloudach-{account}", "default", elsewhere)


def test_rights_in_watched_namespaces_follow_the_values(helm: Helm) -> None:
    helm.install({"watchNamespaces": ["default"]})
    elsewhere = everywhere("default", "serving")
    may(helm, "demo-cloudach-controller", "default", elsewhere | CONTROLLER)
    may(helm, "demo-cloudach-controller", "serving", elsewhere | LEASE)
    helm.upgrade({"watchNamespaces": ["*"]})
    for namespace in ("default", "kube-system"):
        may(helm, "demo-cloudach-controller", namespace, {**CONTROLLER, "namespaces": ("get",)})
        may(helm, "demo-cloudach-gateway", namespace, GATEWAY)
    # Rights that are tied to a name let the controller watch that one in all namespaces, and no other.
    controller = helm.as_account("demo-cloudach-controller")
    for name, refused in (("cloudach-engine-keys", False), ("demo-cloudach-valkey", True)):
        listed = controller.run("get", "secrets", "-A", f"--field-selector=metadata.name={name}")
        assert ("forbidden" in listed.stderr) is refused, listed.stderr


def test_kubectl_says_the_same(helm: Helm) -> None:
    """The question as an operator would ask it: kubectl auth can-i --as=system:serviceaccount:…"""
    helm.install()
    may(helm, "demo-cloudach-gateway", "serving", GATEWAY)
    may(helm, "demo-cloudach-controller", "serving", everywhere("serving") | CONTROLLER | LEASE)
    asked = {
        ("gateway", "watch", "models.cloudach.dev"): "yes",
        ("gateway", "patch", "models.cloudach.dev"): "no",
        ("gateway", "delete", "models.cloudach.dev"): "no",
        ("gateway", "get", "secrets"): "no",
        ("controller", "create", "rayservices.ray.io"): "yes",
        ("controller", "create", "pods"): "no",
        ("controller", "get", "secrets"): "no",
    }
    for (account, verb, resource), answer in asked.items():
        user = helm.as_account(f"demo-cloudach-{account}")
        assert user.run("-n", "serving", "auth", "can-i", verb, resource).stdout.split()[0] == answer, (account, verb)


def test_the_aggregated_roles_let_editors_scale_models(helm: Helm) -> None:
    helm.install()
    name = "demo-cloudach-serving-model-editor"
    labels = helm.get("clusterrole", name)["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    rule = helm.get("clusterrole", name)["rules"][0]
    assert {"models", "models/scale"} == set(rule["resources"])


def test_the_password_needs_no_escaping_in_a_url(helm: Helm) -> None:
    helm.install()
    password = b64decode(helm.get("secret", "demo-cloudach-valkey")["data"]["valkey-password"]).decode()
    assert len(password) == 32
    assert password.isalnum()

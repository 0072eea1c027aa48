"""For every value of the chart: set it, look where it comes out. `test_values` runs them, and misses none."""

# ruff: noqa: E731 - a look of one line reads best where it is used

from __future__ import annotations

from collections.abc import Iterator

from tests.charts.case import (
    Case,
    annotations,
    config,
    container,
    contains,
    dig,
    everywhere,
    has_kind,
    labels,
    pod,
    spec,
    there,
)
from tests.support.helm import NAME, NAMESPACE, VERSION
from tests.support.release import MODEL_SPEC

DIGEST = "sha256:" + "0" * 64
ANNOTATIONS = {"example.com/a": "b"}
LABELS = {"team": "ml"}


def cases() -> Iterator[Case]:
    for part in (
        general,
        models,
        gateway,
        ingress,
        gateway_api,
        controller,
        data,
        raystore,
        keys,
        network,
        monitoring,
        test,
    ):
        yield from part()


def general() -> Iterator[Case]:
    yield Case("nameOverride", "llm", lambda o: o.names("StatefulSet"), ["demo-llm-raystore", "demo-llm-valkey"])
    yield Case("fullnameOverride", "llm", lambda o: o.names("StatefulSet"), ["llm-raystore", "llm-valkey"])
    yield Case("commonLabels", LABELS, everywhere("labels", "team"), True)
    yield Case("commonAnnotations", ANNOTATIONS, everywhere("annotations", "example.com/a"), True)
    for part in ("gateway", "controller", "valkey", "raystore", "test"):
        yield Case("imagePullSecrets", [{"name": "reg"}], pod(part, "imagePullSecrets"), [{"name": "reg"}], name=part)
    places = lambda o: sorted({one["metadata"]["namespace"] for one in o.all("Role")})
    yield Case("watchNamespaces", ["a", "b"], places, ["a", "b", NAMESPACE])
    yield Case("watchNamespaces", ["a", "b"], config("gateway", "kubernetes", "namespaces"), ["a", "b"], name="gateway")
    yield Case("watchNamespaces", ["a"], config("controller", "kubernetes", "namespaces"), ["a"], name="controller")
    bindings = lambda o: len(o.all("ClusterRoleBinding"))
    yield Case("watchNamespaces", ["*"], bindings, 3, name="all")
    yield Case("watchNamespaces", ["*"], config("gateway", "kubernetes", "namespaces"), [], name="all-gateway")
    yield Case("preflight", False, lambda o: len(o) > 10, True, arguments=())
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}}
    yield Case("extraObjects", [extra], there("ConfigMap", "demo-extra"), True)
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}"
    yield Case("extraObjects", [text], there("ConfigMap", "demo-text"), True, name="text")
    yield Case("priorityClasses.create", True, lambda o: len(o.all("PriorityClass")), 2)
    on = {"priorityClasses.create": True}
    for part in ("gateway", "controller"):
        value = lambda o, part=part: o.get("PriorityClass", f"{NAME}-{NAMESPACE}-{part}")["value"]
        yield Case(f"priorityClasses.{part}", 7, value, 7, on)
    for part, name in {
        "gateway": "gateway",
        "valkey": "gateway",
        "raystore": "gateway",
        "controller": "controller",
    }.items():
        yield Case(
            "priorityClasses.create", True, pod(part, "priorityClassName"), f"{NAME}-{NAMESPACE}-{name}", name=part
        )


def models() -> Iterator[Case]:
    model = {"name": "m", "namespace": "a", "labels": LABELS, "annotations": ANNOTATIONS, "spec": MODEL_SPEC}
    watch = {"watchNamespaces": ["a", NAMESPACE]}
    yield Case("models", [model], lambda o: [one["spec"] for one in o.all("Model")], [MODEL_SPEC], watch)
    yield Case("models", [model], lambda o: o.get("Model", "m")["metadata"]["namespace"], "a", watch, name="namespace")
    yield Case("models", [model], labels("Model", "m"), "ml", watch, name="labels")
    yield Case("models", [model], annotations("Model", "m"), "b", watch, name="annotations")
    yield Case("models", [model], annotations("Job", "delete-models", "helm.sh/hook"), "pre-delete", watch, name="job")


def image_of(name: str) -> Iterator[Case]:
    image = {"gateway": "ghcr.io/cloudach/gateway", "controller": "ghcr.io/cloudach/controller"}.get(
        name, "docker.io/valkey/valkey"
    )
    tag = "9.0.8-alpine3.24" if name == "valkey" else VERSION
    yield Case(f"{name}.image.repository", "r.example/x", container(name, "image"), f"r.example/x:{tag}")
    yield Case(f"{name}.image.tag", "9", container(name, "image"), f"{image}:9")
    yield Case(f"{name}.image.digest", DIGEST, container(name, "image"), f"{image}@{DIGEST}")
    yield Case(f"{name}.image.pullPolicy", "Always", container(name, "imagePullPolicy"), "Always")


def component(name: str, kind: str, account: bool = True) -> Iterator[Case]:
    """What gateway, controller, Valkey and the store of Ray's state have in common."""
    if name != "raystore":
        yield from image_of(name)
    resources = {"requests": {"cpu": "3"}}
    yield Case(f"{name}.resources", resources, container(name, "resources", "requests", "cpu"), "3")
    yield Case(f"{name}.nodeSelector", LABELS, pod(name, "nodeSelector"), LABELS)
    toleration = {"key": "dedicated", "operator": "Exists"}
    yield Case(f"{name}.tolerations", [toleration], pod(name, "tolerations"), [toleration])
    affinity = {"nodeAffinity": {}}
    yield Case(f"{name}.affinity", affinity, pod(name, "affinity"), affinity)
    yield Case(f"{name}.priorityClassName", "own", pod(name, "priorityClassName"), "own", PRIORITIES)
    metadata = lambda o: dig(o.get(kind, name), "spec", "template", "metadata")
    yield Case(f"{name}.podAnnotations", ANNOTATIONS, lambda o: metadata(o)["annotations"].get("example.com/a"), "b")
    yield Case(f"{name}.podLabels", LABELS, lambda o: metadata(o)["labels"].get("team"), "ml")
    yield Case(f"{name}.annotations", ANNOTATIONS, annotations(kind, name), "b")
    env = {"name": "A", "value": "b"}
    yield Case(f"{name}.extraEnv", [env], contains(container(name, "env"), env), True)
    volume, mount = {"name": "more", "emptyDir": {}}, {"name": "more", "mountPath": "/more"}
    yield Case(f"{name}.extraVolumes", [volume], contains(pod(name, "volumes"), volume), True)
    yield Case(f"{name}.extraVolumeMounts", [mount], contains(container(name, "volumeMounts"), mount), True)
    yield Case(f"{name}.podSecurityContext", {"runAsUser": 7}, pod(name, "securityContext", "runAsUser"), 7)
    context = {"runAsUser": 8}
    yield Case(f"{name}.securityContext", context, container(name, "securityContext", "runAsUser"), 8)
    if kind == "StatefulSet":
        return
    source = {"secretRef": {"name": "s"}}
    yield Case(f"{name}.extraEnvFrom", [source], container(name, "envFrom"), [source])
    sidecar = {"name": "side", "image": "i"}
    yield Case(f"{name}.extraContainers", [sidecar], contains(pod(name, "containers"), sidecar), True)
    yield Case(f"{name}.initContainers", [sidecar], pod(name, "initContainers"), [sidecar])
    alias = {"ip": "10.0.0.1", "hostnames": ["redis"]}
    yield Case(f"{name}.hostAliases", [alias], pod(name, "hostAliases"), [alias])
    spread = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    yield Case(
        f"{name}.topologySpreadConstraints",
        [spread],
        lambda o: [(one["topologyKey"], one["labelSelector"]) for one in o.pod(name)["topologySpreadConstraints"]],
        [("rack", {"matchLabels": selector(name)})],
    )
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield Case(f"{name}.{probe}", {"periodSeconds": 99}, container(name, probe, "periodSeconds"), 99)
        request = "/readyz" if probe == "readinessProbe" else "/healthz"  # to start again what waits would not help
        asked = container(name, probe, "httpGet", "path")
        yield Case(f"{name}.{probe}", {"httpGet": {"path": "/x"}}, asked, request, name="request", same=True)
    yield Case(f"{name}.serviceAccount.create", False, there("ServiceAccount", name), False)
    named = {f"{name}.serviceAccount.create": False}
    yield Case(f"{name}.serviceAccount.name", "own", pod(name, "serviceAccountName"), "own", named)
    bound = lambda o: o.get("RoleBinding", name)["subjects"][0]["name"]
    yield Case(f"{name}.serviceAccount.name", "own", bound, "own", named, name="bound")
    yield Case(f"{name}.serviceAccount.annotations", ANNOTATIONS, annotations("ServiceAccount", name), "b")
    yield Case(f"{name}.podDisruptionBudget.enabled", False, there("PodDisruptionBudget", name), False)
    most = spec("PodDisruptionBudget", name, "maxUnavailable")
    yield Case(f"{name}.podDisruptionBudget.maxUnavailable", "25%", most, "25%")
    yield Case(f"{name}.replicas", 5, spec("Deployment", name, "replicas"), 5)


PRIORITIES = {"priorityClasses.create": True}


def selector(part: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "cloudach",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": part,
    }


def gateway() -> Iterator[Case]:
    yield from component("gateway", "Deployment")
    yield Case("gateway.processes", 4, config("gateway", "listen", "processes"), 4)
    static = {"gateway.config.models": [{"id": "m", "upstreams": ["http://engine:8000"]}]}
    yield Case("gateway.watchModels", False, config("gateway", "kubernetes", "enabled"), None, static)
    yield Case("gateway.watchModels", False, there("Role", "gateway"), False, static, name="no rights")
    yield Case(
        "gateway.watchModels", False, pod("gateway", "automountServiceAccountToken"), False, static, name="token"
    )
    settings = {"timeouts": {"total_s": 300}, "max_body_bytes": 20971520}
    yield Case("gateway.config", settings, config("gateway", "timeouts", "total_s"), 300)
    yield Case("gateway.config", settings, config("gateway", "max_body_bytes"), 20971520, name="large numbers")
    yield Case("gateway.drainSeconds", 120, config("gateway", "timeouts", "drain_s"), 120)
    yield Case("gateway.drainSeconds", 120, pod("gateway", "terminationGracePeriodSeconds"), 145, name="grace")
    yield Case(
        "gateway.preStopSeconds", 30, container("gateway", "lifecycle", "preStop", "exec", "command"), ["sleep", "30"]
    )
    yield Case("gateway.preStopSeconds", 30, pod("gateway", "terminationGracePeriodSeconds"), 105, name="grace")
    yield Case("gateway.preStopSeconds", 0, container("gateway", "lifecycle"), None, name="none")
    hpa, keda = (
        {"gateway.autoscaling.kind": "hpa"},
        {
            "gateway.autoscaling.kind": "keda",
            "gateway.autoscaling.triggers": [{"type": "cpu"}],
        },
    )
    scaler = "HorizontalPodAutoscaler"
    yield Case("gateway.autoscaling.kind", "hpa", spec("Deployment", "gateway", "replicas"), None, name="replicas")
    yield Case("gateway.autoscaling.kind", "hpa", has_kind(scaler), True, name="hpa")
    triggers = {"gateway.autoscaling.triggers": [{"type": "cpu"}]}
    yield Case("gateway.autoscaling.kind", "keda", has_kind("ScaledObject"), True, triggers, name="keda")
    yield Case("gateway.autoscaling.minReplicas", 3, spec(scaler, "gateway", "minReplicas"), 3, hpa)
    yield Case(
        "gateway.autoscaling.minReplicas", 3, spec("ScaledObject", "gateway", "minReplicaCount"), 3, keda, name="keda"
    )
    yield Case("gateway.autoscaling.maxReplicas", 30, spec(scaler, "gateway", "maxReplicas"), 30, hpa)
    yield Case(
        "gateway.autoscaling.maxReplicas", 30, spec("ScaledObject", "gateway", "maxReplicaCount"), 30, keda, name="keda"
    )
    aim = spec(scaler, "gateway", "metrics", 0, "resource", "target", "averageUtilization")
    yield Case("gateway.autoscaling.targetCPUUtilization", 80, aim, 80, hpa)
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    yield Case("gateway.autoscaling.metrics", [metric], spec(scaler, "gateway", "metrics", 1), metric, hpa)
    calm = ("scaleDown", "stabilizationWindowSeconds")
    yield Case("gateway.autoscaling.scaleDownSeconds", 60, spec(scaler, "gateway", "behavior", *calm), 60, hpa)
    trigger = {"type": "prometheus", "metadata": {"query": "sum(cloudach_running_requests)"}}
    yield Case(
        "gateway.autoscaling.triggers",
        [trigger],
        spec("ScaledObject", "gateway", "triggers"),
        [trigger],
        {**keda, **triggers} | {"gateway.autoscaling.kind": "keda"},
    )
    yield Case("gateway.service.type", "LoadBalancer", spec("Service", "gateway", "type"), "LoadBalancer")
    yield Case("gateway.service.port", 8080, spec("Service", "gateway", "ports", 0, "port"), 8080)
    yield Case("gateway.service.clusterIP", "10.0.0.9", spec("Service", "gateway", "clusterIP"), "10.0.0.9")
    yield Case("gateway.service.annotations", ANNOTATIONS, annotations("Service", "gateway"), "b")
    ranges = spec("Service", "gateway", "loadBalancerSourceRanges")
    yield Case("gateway.service.loadBalancerSourceRanges", ["10.0.0.0/8"], ranges, ["10.0.0.0/8"])


def ingress() -> Iterator[Case]:
    on = {"ingress.enabled": True}
    tls = {**on, "ingress.tls.enabled": True}
    nginx = "nginx.ingress.kubernetes.io/"
    yield Case("ingress.enabled", True, has_kind("Ingress"), True)
    yield Case("ingress.className", "nginx", spec("Ingress", "gateway", "ingressClassName"), "nginx", on)
    timeout = annotations("Ingress", "gateway", "haproxy.org/timeout-server")
    yield Case("ingress.flavour", "haproxy", timeout, "960s", on)
    attributes = annotations("Ingress", "gateway", "alb.ingress.kubernetes.io/load-balancer-attributes")
    yield Case("ingress.flavour", "alb", attributes, "idle_timeout.timeout_seconds=960", on, name="alb")
    yield Case(
        "ingress.flavour",
        "none",
        lambda o: o.get("Ingress", "gateway")["metadata"].get("annotations"),
        None,
        on,
        name="none",
    )
    yield Case("ingress.annotations", ANNOTATIONS, annotations("Ingress", "gateway"), "b", on)
    own = {f"{nginx}proxy-read-timeout": "5"}
    yield Case(
        "ingress.annotations",
        own,
        annotations("Ingress", "gateway", f"{nginx}proxy-read-timeout"),
        "5",
        on,
        name="own first",
    )
    yield Case("ingress.hosts", ["a.b"], spec("Ingress", "gateway", "rules", 0, "host"), "a.b", on)
    path = spec("Ingress", "gateway", "rules", 0, "http", "paths", 0, "path")
    yield Case("ingress.path", "/llm", path, "/llm", on)
    secret = spec("Ingress", "gateway", "tls", 0, "secretName")
    yield Case("ingress.tls.enabled", True, secret, f"{NAME}-tls", on)
    yield Case("ingress.tls.secretName", "own", secret, "own", tls)
    for name, value in {"clusterIssuer": "cluster-issuer", "issuer": "issuer"}.items():
        yield Case(
            f"ingress.tls.{name}", "le", annotations("Ingress", "gateway", f"cert-manager.io/{value}"), "le", tls
        )
    total = {"timeouts": {"total_s": 100.5}}
    read = annotations("Ingress", "gateway", f"{nginx}proxy-read-timeout")
    yield Case("gateway.config", total, read, "161", on, name="ingress timeout")
    size = annotations("Ingress", "gateway", f"{nginx}proxy-body-size")
    yield Case("gateway.config", {"max_body_bytes": 20971520}, size, "20971520", on, name="ingress body")


def gateway_api() -> Iterator[Case]:
    parent = {"name": "edge", "namespace": "infra"}
    on = {"gatewayApi.enabled": True, "gatewayApi.parentRefs": [parent]}
    own = {"gatewayApi.enabled": True, "gatewayApi.gateway.create": True, "gatewayApi.gateway.className": "envoy"}
    tls = {**own, "gatewayApi.gateway.tlsSecretName": "cert"}
    yield Case("gatewayApi.enabled", True, has_kind("HTTPRoute"), True, {"gatewayApi.parentRefs": [parent]})
    parents = spec("HTTPRoute", "gateway", "parentRefs")
    yield Case("gatewayApi.parentRefs", [parent], parents, [parent, {"name": NAME}], own)
    yield Case("gatewayApi.hostnames", ["a.b"], spec("HTTPRoute", "gateway", "hostnames"), ["a.b"], on)
    yield Case("gatewayApi.annotations", ANNOTATIONS, annotations("HTTPRoute", "gateway"), "b", on)
    yield Case(
        "gatewayApi.gateway.create", True, has_kind("Gateway"), True, {**on, "gatewayApi.gateway.className": "envoy"}
    )
    yield Case("gatewayApi.gateway.className", "istio", spec("Gateway", NAME, "gatewayClassName"), "istio", own)
    yield Case("gatewayApi.gateway.annotations", ANNOTATIONS, annotations("Gateway", NAME), "b", own)
    reference = spec("Gateway", NAME, "listeners", 0, "tls", "certificateRefs", 0, "name")
    yield Case("gatewayApi.gateway.tlsSecretName", "cert", reference, "cert", own)
    issuer = annotations("Gateway", NAME, "cert-manager.io/cluster-issuer")
    yield Case("gatewayApi.gateway.clusterIssuer", "le", issuer, "le", tls)


def controller() -> Iterator[Case]:
    yield from component("controller", "Deployment")
    for kind in ("Deployment", "Role", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"):
        yield Case("controller.enabled", False, there(kind, "controller"), False, name=kind)
    image = config("controller", "inference", "image")
    yield Case("controller.inferenceImage.repository", "r/x", image, f"r/x:{VERSION}")
    yield Case("controller.inferenceImage.tag", "9", image, "ghcr.io/cloudach/inference:9")
    yield Case("controller.inferenceImage.digest", DIGEST, image, f"ghcr.io/cloudach/inference@{DIGEST}")
    yield Case("controller.config", {"log_level": "debug"}, config("controller", "log_level"), "debug")
    limit = config("controller", "ray", "stream_limit_s")
    yield Case("controller.config", {"ray": {"stream_limit_s": 99}}, limit, 99, name="own limit")
    secret = lambda o: [r["resourceNames"] for r in o.get("Role", "controller")["rules"] if "resourceNames" in r]
    yield Case("controller.config", {"ray": {"token_secret": "own"}}, contains(secret, ["own"]), True, name="token")
    yield Case("rbac.create", False, lambda o: o.all("Role") + o.all("ClusterRole"), [])
    without = {"rbac.clusterRole": False}
    yield Case("rbac.aggregate", False, has_kind("ClusterRole"), False, without)
    yield Case("rbac.clusterRole", False, has_kind("ClusterRoleBinding"), False)


def data() -> Iterator[Case]:
    external = {"valkey.enabled": False, "redis.existingSecret": "s"}
    url = lambda o: o.env("gateway")["CLOUDACH_REDIS_URL"]
    yield Case(
        "redis.existingSecret",
        "mine",
        url,
        {"secretKeyRef": {"name": "mine", "key": "url"}},
        {"valkey.enabled": False},
        name="only",
    )
    yield Case("redis.existingSecretKey", "dsn", url, {"secretKeyRef": {"name": "s", "key": "dsn"}}, external)
    for kind in ("StatefulSet", "Service", "Secret", "ConfigMap", "NetworkPolicy"):
        yield Case("valkey.enabled", False, there(kind, "valkey"), False, {}, name=kind, arguments=EXTERNAL)
    password = container("valkey", "env", 0, "valueFrom", "secretKeyRef")
    asked = lambda o: o.env("gateway")["CLOUDACH_REDIS_PASSWORD"]["secretKeyRef"]
    for look, name in ((password, "valkey"), (asked, "gateway")):
        yield Case("valkey.auth.existingSecret", "mine", look, {"name": "mine", "key": "valkey-password"}, name=name)
        yield Case("valkey.auth.existingSecretKey", "pw", look, {"name": f"{NAME}-valkey", "key": "pw"}, name=name)
    yield Case("valkey.auth.existingSecret", "mine", there("Secret", "valkey"), False, name="no other")
    lines = lambda o: o.get("ConfigMap", "valkey")["data"]["valkey.conf"].splitlines()
    yield Case("valkey.tls.enabled", True, contains(lines, "tls-port 6379"), True)
    yield Case("valkey.tls.enabled", True, contains(lines, "port 6379"), False, name="no other port")
    yield Case("valkey.tls.enabled", True, there("Secret", "valkey-tls"), True, name="certificate")
    yield Case("valkey.tls.enabled", True, lambda o: url(o).partition(":")[0], "rediss", name="gateway")
    tls = {"valkey.tls.enabled": True, "firstKey.create": True}
    yield Case("valkey.tls.existingSecret", "mine", there("Secret", "valkey-tls"), False, tls)
    whole = lambda part: lambda o: [v["secret"] for v in o.pod(part)["volumes"] if "secret" in v]
    yield Case(
        "valkey.tls.existingSecret", "mine", whole("valkey"), [{"secretName": "mine", "defaultMode": 0o440}], tls
    )
    ca = [{"secretName": "mine", "items": [{"key": "ca.crt", "path": "ca.crt"}]}]
    for part in ("gateway", "first-key", "test"):
        yield Case("valkey.tls.existingSecret", "mine", whole(part), ca, tls, name=part)
    yield Case("valkey.appendfsync", "always", contains(lines, "appendfsync always"), True)
    yield from stateful("valkey")


def stateful(part: str) -> Iterator[Case]:
    """What the two Valkeys have in common."""
    yield from component(part, "StatefulSet")
    lines = lambda o: o.get("ConfigMap", part)["data"]["valkey.conf"].splitlines()
    yield Case(f"{part}.maxMemory", "2gb", contains(lines, "maxmemory 2gb"), True)
    yield Case(f"{part}.extraConfig", "io-threads 2", contains(lines, "io-threads 2"), True)
    yield Case(f"{part}.service.clusterIP", "10.0.0.9", spec("Service", part, "clusterIP"), "10.0.0.9")
    claim = ("volumeClaimTemplates", 0)
    volume = {"name": "data", "emptyDir": {}}
    yield Case(f"{part}.persistence.enabled", False, contains(pod(part, "volumes"), volume), True)
    size = spec("StatefulSet", part, *claim, "spec", "resources", "requests", "storage")
    yield Case(f"{part}.persistence.size", "20Gi", size, "20Gi")
    storage = spec("StatefulSet", part, *claim, "spec", "storageClassName")
    yield Case(f"{part}.persistence.storageClass", "fast", storage, "fast")
    modes = spec("StatefulSet", part, *claim, "spec", "accessModes")
    yield Case(f"{part}.persistence.accessModes", ["ReadWriteOncePod"], modes, ["ReadWriteOncePod"])
    noted = spec("StatefulSet", part, *claim, "metadata", "annotations")
    yield Case(f"{part}.persistence.annotations", ANNOTATIONS, noted, ANNOTATIONS)


def raystore() -> Iterator[Case]:
    for kind in ("StatefulSet", "Service", "Secret", "ConfigMap", "NetworkPolicy"):
        yield Case("raystore.enabled", False, there(kind, "raystore"), False, name=kind)
    address = config("controller", "gcs_store", "address")
    yield Case("raystore.enabled", True, address, f"{NAME}-raystore.{NAMESPACE}.svc:6379", name="told", same=True)
    own = {"ray": {"gcs_redis_address": "redis.mine:6379"}}
    yield Case("controller.config", own, there("StatefulSet", "raystore"), False, name="own store")
    yield Case("raystore.newClusters", False, config("controller", "gcs_store", "new_clusters"), False)
    yield from stateful("raystore")
    password = container("raystore", "env", 0, "valueFrom", "secretKeyRef")
    read = lambda o: next(v["secret"] for v in o.pod("controller")["volumes"] if v["name"] == "raystore")
    file = lambda o: (read(o)["secretName"], read(o)["items"][0]["key"])
    yield Case("raystore.auth.existingSecret", "mine", password, {"name": "mine", "key": "raystore-password"})
    yield Case("raystore.auth.existingSecret", "mine", file, ("mine", "raystore-password"), name="controller")
    yield Case("raystore.auth.existingSecret", "mine", there("Secret", "raystore"), False, name="no other")
    yield Case("raystore.auth.existingSecretKey", "pw", password, {"name": f"{NAME}-raystore", "key": "pw"})
    yield Case("raystore.auth.existingSecretKey", "pw", file, (f"{NAME}-raystore", "pw"), name="controller")


EXTERNAL = ("--set", "preflight=false,redis.existingSecret=s")


def keys() -> Iterator[Case]:
    on = {"firstKey.create": True}
    yield Case("firstKey.create", True, there("Job", "first-key"), True)
    arguments = container("first-key", "args")
    yield Case("firstKey.tenant", "acme", contains(arguments, "--tenant=acme"), True, on)
    limit = "--requests-per-minute=600"
    yield Case("firstKey.arguments", [limit], contains(arguments, limit), True, on)


def network() -> Iterator[Case]:
    peer = {"namespaceSelector": {"matchLabels": {"x": "y"}}}
    yield Case("networkPolicy.enabled", False, has_kind("NetworkPolicy"), False)
    yield Case("networkPolicy.enabled", False, config("controller", "network_policy", "enabled"), False, name="models")
    rule = lambda part, index: spec("NetworkPolicy", part, "ingress", index, "from", 0)
    of_models = lambda *path: config("controller", "network_policy", *path)
    yield Case("networkPolicy.gatewayFrom", [peer], rule("gateway", 0), peer)
    for part, index in {"gateway": 1, "controller": 0}.items():
        yield Case("networkPolicy.metricsFrom", [peer], rule(part, index), peer, name=part)
    yield Case("networkPolicy.metricsFrom", [peer], of_models("metrics"), [peer], name="models")
    yield Case("networkPolicy.kuberayFrom", [peer], of_models("kuberay"), [peer])
    where = of_models("kuberay", 0, "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name")
    yield Case("networkPolicy.kuberayNamespace", "ray-system", where, "ray-system")
    more = {"ports": [{"port": 9999}], "from": [peer]}
    yield Case("networkPolicy.extraModelIngress", [more], of_models("extra_ingress"), [more])
    yield Case("networkPolicy.egress.enabled", False, of_models("egress"), False)
    yield Case("networkPolicy.egress.alsoClosed", ["8.8.0.0/16"], of_models("also_closed"), ["8.8.0.0/16"])
    out = {"ports": [{"port": 3128}], "to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}]}
    yield Case("networkPolicy.egress.apiServer", [out], of_models("api_server"), [out])
    yield Case("networkPolicy.egress.extra", [out], of_models("extra_egress"), [out])
    for part in ("gateway", "controller", "valkey"):
        rules = spec("NetworkPolicy", part, "egress")
        types = spec("NetworkPolicy", part, "policyTypes")
        yield Case(f"networkPolicy.egress.{part}", [out], contains(rules, out), True)
        yield Case("networkPolicy.egress.enabled", False, types, ["Ingress"], name=part)
    asks = spec("NetworkPolicy", "controller", "egress")
    yield Case("networkPolicy.egress.apiServer", [out], contains(asks, out), True, name="controller")
    own = {"valkey.enabled": False, "redis.existingSecret": "mine"}
    redis = contains(spec("NetworkPolicy", "gateway", "egress"), out)
    yield Case("networkPolicy.egress.redis", [out], redis, True, own)


def monitoring() -> Iterator[Case]:
    monitors = {"monitoring.serviceMonitor.enabled": True}
    yield Case("monitoring.serviceMonitor.enabled", True, lambda o: len(o.all("ServiceMonitor")), 2)
    interval = spec("ServiceMonitor", "gateway", "endpoints", 0, "interval")
    yield Case("monitoring.serviceMonitor.interval", "60s", interval, "60s", monitors)
    yield Case("monitoring.serviceMonitor.labels", LABELS, labels("ServiceMonitor", "gateway"), "ml", monitors)
    relabel = {"action": "labeldrop", "regex": "x"}
    relabelings = spec("ServiceMonitor", "gateway", "endpoints", 0, "relabelings")
    yield Case("monitoring.serviceMonitor.relabelings", [relabel], relabelings, [relabel], monitors)
    pods = {"monitoring.podMonitor.enabled": True}
    yield Case("monitoring.podMonitor.enabled", True, has_kind("PodMonitor"), True)
    yield Case(
        "monitoring.podMonitor.interval",
        "60s",
        spec("PodMonitor", "ray", "podMetricsEndpoints", 0, "interval"),
        "60s",
        pods,
    )
    yield Case("monitoring.podMonitor.labels", LABELS, labels("PodMonitor", "ray"), "ml", pods)
    rules = {"monitoring.prometheusRule.enabled": True}
    yield Case("monitoring.prometheusRule.enabled", True, has_kind("PrometheusRule"), True)
    yield Case("monitoring.prometheusRule.labels", LABELS, labels("PrometheusRule", "alerts"), "ml", rules)
    alerts = spec("PrometheusRule", "alerts", "groups", 0, "rules")
    first = lambda *path: spec("PrometheusRule", "alerts", "groups", 0, "rules", 0, *path)
    yield Case("monitoring.prometheusRule.alertLabels", LABELS, first("labels", "team"), "ml", rules)
    named = lambda o: "CloudachGatewayDown" in [rule["alert"] for rule in alerts(o)]
    yield Case("monitoring.prometheusRule.disabled", ["CloudachGatewayDown"], named, False, rules)
    runbook = "https://wiki.example/cloudachgatewaydown.md"
    yield Case(
        "monitoring.prometheusRule.runbookUrl",
        "https://wiki.example",
        first("annotations", "runbook_url"),
        runbook,
        rules,
    )
    expressions = lambda o: " ".join(rule["expr"] for rule in alerts(o))
    yield Case("monitoring.prometheusRule.failedShare", 0.125, contains(expressions, "> 0.125"), True, rules)
    yield Case("monitoring.prometheusRule.firstTokenSeconds", 2.5, contains(expressions, "> 2.5"), True, rules)
    boards = {"monitoring.dashboards.enabled": True}
    board = "dashboard-gateway"
    yield Case("monitoring.dashboards.enabled", True, there("ConfigMap", board), True)
    yield Case("monitoring.dashboards.labels", {"find": "me"}, labels("ConfigMap", board, "find"), "me", boards)
    yield Case("monitoring.dashboards.annotations", ANNOTATIONS, annotations("ConfigMap", board), "b", boards)
    place = lambda o: o.get("ConfigMap", board)["metadata"]["namespace"]
    yield Case("monitoring.dashboards.namespace", "grafana", place, "grafana", boards)


def test() -> Iterator[Case]:
    yield Case("test.enabled", False, there("Pod", "test"), False)
    yield Case("test.loseHead", "qwen", lambda o: o.env("test")["LOSE_HEAD"], "qwen")
    yield Case("test.loseHead", "qwen", there("Role", "test"), True, name="rights")
    yield Case("test.loseHead", "qwen", pod("test", "automountServiceAccountToken"), True, name="token")
    yield Case("test.model", "llama", lambda o: o.env("test")["MODEL"], "llama")
    alias = {"ip": "10.0.0.1", "hostnames": ["metrics"]}
    yield Case("test.hostAliases", [alias], pod("test", "hostAliases"), [alias])
    yield Case("test.timeoutSeconds", 9, lambda o: o.env("test")["TIMEOUT_S"], "9")

"""A real Kubernetes API server for tests, without Docker: etcd, kube-apiserver and their kin, as envtest starts them.

    with api_server() as cluster:                    # RBAC, admission, built-in kinds; `controllers=True` for garbage
        cluster.kubectl("create", "namespace", "x")  #   collection, service accounts and Deployments down to pods
        load_kube_config(str(cluster.kubeconfig))
        cluster.stop(); cluster.start()              # an outage: same address, same data

    with crd_server() as cluster:                    # CRDs and custom resources alone, with CEL and strict fields
        cluster.kubectl.apply(crd)

The programs come from the folder that KUBEBUILDER_ASSETS names, as envtest's `setup-envtest use -p path` prints it.
Each server listens on a free port of 127.0.0.1, keeps its state in a temporary folder, and ends with the test process.
Where there are no programs, both skip the test that asked, and say what it takes.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import httpx
import pytest
import yaml
from cloudach_service.processes import die_with_parent

from tests.support.ports import free_port

from .kube_assets import KubeFailed, assets, crd_program, minor, require_kube
from .kube_pki import write_pki
from .kubectl import Kubectl

__all__ = ["Cluster", "KubeFailed", "api_server", "assets", "crd_server", "require_kube"]

PATIENCE_S = 180.0  # for any of the servers to come up, on a busy machine
_GRACE_S = 0.5  # an API server with watches on it takes a minute to end by itself; all that it holds is in etcd


class Cluster:
    """A control plane. `kubeconfig` is an administrator's; `kubectl` uses it. `controllers`: also Kubernetes' own, but
    for those that `without` names."""

    def __init__(
        self, programs: Path, *, controllers: bool = False, without: Sequence[str] = (), crds: bool = False
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="cloudach-kube-"))
        self.kubeconfig = self.home / "kubeconfig"
        self.kubectl = Kubectl(self.kubeconfig)
        self.builtin = Kubectl(self.home / "kubeconfig-builtin")  # for namespaces, Secrets and the like
        self._programs = programs
        self.controllers = controllers
        self._without = without
        self._crds = crds
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for folder in ("pki", "log", "volumes"):
            (self.home / folder).mkdir()
        write_pki(self.home / "pki")
        self._tls = ssl.create_default_context(cafile=str(self.home / "pki/ca.crt"))
        self._tls.load_cert_chain(self.home / "pki/admin.crt", self.home / "pki/admin.key")
        self._ports: list[int] = []

    @property
    def makes_slices(self) -> bool:
        """Whether the pods of Services are told in EndpointSlices."""
        return self.controllers and "endpointslice" not in self._without

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports[2]}"

    @property
    def tls(self) -> ssl.SSLContext:
        """An administrator's, for clients other than kubectl."""
        return self._tls

    @cached_property
    def http(self) -> httpx.Client:
        """An administrator's, kept open until the cluster is closed."""
        return httpx.Client(verify=self._tls, base_url=self.url, trust_env=False, timeout=60)

    @property
    def minor(self) -> int:
        """20 for a kube-apiserver of Kubernetes 1.20."""
        return minor(self._programs / "kube-apiserver")

    @property
    def running(self) -> bool:
        """Between start() and stop()."""
        return bool(self._running)

    def start(self) -> None:
        """Also after stop(): the same address and data. Raises KubeFailed."""
        self._ports = self._ports or [free_port() for _ in range(4)]
        try:
            self._start()
        except KubeFailed:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the servers; what they hold stays for start()."""
        running = list(reversed(self._running.values()))
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def close(self) -> None:
        if "http" in self.__dict__:
            self.http.close()
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self) -> None:
        etcd_port, peer_port, port, crd_port = self._ports
        etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        self._spawn(
            "etcd",
            *("--name=k", f"--data-dir={self.home}/etcd", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=k={peer}"),
        )
        # An API server that does not find it within 20 s ends.
        self._await("etcd", f"{etcd}/health")
        # Without the controller-manager no namespace ever gets its default service account, which this plugin asks for.
        plugins = () if self.controllers else ("--disable-admission-plugins=ServiceAccount",)
        self._spawn(
            "kube-apiserver",
            *(*_serving(port), f"--etcd-servers={etcd}", "--authorization-mode=RBAC", "--allow-privileged=true"),
            *("--service-cluster-ip-range=10.0.0.0/16", "--endpoint-reconciler-type=none", "--cert-dir=."),
            *("--service-account-key-file=sa.pub", "--service-account-signing-key-file=sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            *("--proxy-client-cert-file=front-proxy.crt", "--proxy-client-key-file=front-proxy.key", *plugins),
        )
        self._await_ready("kube-apiserver", port)
        for path in (self.kubeconfig, self.builtin.kubeconfig):
            self._write_kubeconfig(path, "admin", port)
        self._await("kube-apiserver", f"{self.url}/api/v1/namespaces/default")
        if self._crds:
            self._start_crd_server(etcd, crd_port)
        if self.controllers:
            self._start_controllers(port)

    def _start_crd_server(self, etcd: str, port: int) -> None:
        """A newer server for custom resources; it asks the older one about users, rights and namespaces."""
        program = crd_program(self._programs)
        assert program is not None
        self._spawn(
            program,
            *(*_serving(port), f"--etcd-servers={etcd}", "--etcd-prefix=/custom", "--authentication-skip-lookup=true"),
            *(f"--{use}kubeconfig={self.builtin.kubeconfig}" for use in ("", "authentication-", "authorization-")),
            "--enable-priority-and-fairness=false",
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
        )
        self._await_ready(program, port)
        self._write_kubeconfig(self.kubeconfig, "admin", port)

    def _start_controllers(self, port: int) -> None:
        for program, client in (("kube-controller-manager", "controller-manager"), ("kube-scheduler", "scheduler")):
            if not (self._programs / program).is_file():
                raise KubeFailed(f"{self._programs} holds no {program}, which this test needs")
            config = self.home / f"{client}.kubeconfig"
            self._write_kubeconfig(config, client, port)
            old = minor(self._programs / program) < 24
            flags = [f"--{use}kubeconfig={config}" for use in ("", "authentication-", "authorization-")]
            flags += ["--leader-elect=false", "--secure-port=0", *(["--port=0"] if old else [])]
            if client == "controller-manager":
                flags += ["--service-account-private-key-file=sa.key", "--root-ca-file=ca.crt"]
                flags += ["--horizontal-pod-autoscaler-sync-period=1s"]
                flags += [f"--controllers={','.join(['*', *(f'-{name}' for name in self._without)])}"]
                flags += ["--use-service-account-credentials=true", f"--flex-volume-plugin-dir={self.home}/volumes"]
            self._spawn(program, *flags)
        self._await("kube-controller-manager", f"{self.url}/api/v1/namespaces/default/serviceaccounts/default")

    def _spawn(self, program: str, *flags: str) -> None:
        with (self.home / "log" / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen(
                [self._programs / program, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home / "pki",
                preexec_fn=die_with_parent(),
            )

    def _await_ready(self, program: str, port: int) -> None:
        self._await(program, f"https://127.0.0.1:{port}/readyz")

    def _await(self, program: str, url: str) -> None:
        """Until the answer is 200. Raises KubeFailed."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(verify=self._tls, trust_env=False, timeout=5) as client:
            while True:
                for name, process in self._running.items():
                    if process.poll() is not None:
                        raise KubeFailed(f"{name} ended with {process.returncode}:\n{self.log(name)[-3000:]}")
                try:
                    if client.get(url).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                if time.monotonic() > deadline:
                    raise KubeFailed(f"no {url} after {PATIENCE_S} s:\n{self.log(program)[-3000:]}")
                time.sleep(0.05)

    def log(self, program: str) -> str:
        return (self.home / "log" / f"{program}.log").read_text(errors="replace")

    def _write_kubeconfig(self, path: Path, client: str, port: int) -> None:
        def data(file: str) -> str:
            return b64encode((self.home / "pki" / file).read_bytes()).decode()

        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": data("ca.crt")}
        user = {"client-certificate-data": data(f"{client}.crt"), "client-key-data": data(f"{client}.key")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": client, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": client}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))


@contextmanager
def api_server(*, controllers: bool = False, without: Sequence[str] = ()) -> Iterator[Cluster]:
    """A kube-apiserver of whatever version KUBEBUILDER_ASSETS holds. Raises KubeFailed; skips the test without it."""
    with _running(Cluster(require_kube(), controllers=controllers, without=without)) as cluster:
        yield cluster


@contextmanager
def crd_server() -> Iterator[Cluster]:
    """A server of custom resources that knows CEL: `apiextensions-apiserver-*` if there is one, else kube-apiserver.

    Raises KubeFailed; skips the test where neither will do.
    """
    programs = require_kube()
    separate = crd_program(programs) is not None
    if not separate and minor(programs / "kube-apiserver") < 29:
        pytest.skip("LEFT OUT, needs a Kubernetes API server of 1.29 or later in KUBEBUILDER_ASSETS")
    with _running(Cluster(programs, crds=separate)) as cluster:
        yield cluster


@contextmanager
def _running(cluster: Cluster) -> Iterator[Cluster]:
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def _serving(port: int) -> tuple[str, ...]:
    return (
        *("--bind-address=127.0.0.1", f"--secure-port={port}", "--client-ca-file=ca.crt"),
        *("--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key"),
        *("--requestheader-client-ca-file=ca.crt", "--requestheader-allowed-names=front-proxy"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    )

import itertools
import subprocess
from pathlib import Path
from typing import Self

import pytest
from cloudach_inference.local import ray_env
from cloudach_inference.local.ray_env import Ports, choose_ports, environment, haproxy_wrapper
from cloudach_service.traces.settings import Address

PORTS = Ports(1, 2, 3, 4, 5, 6, 20000)


def env_of(folder: str, base: dict[str, str], api_key: str | None) -> dict[str, str]:
    return environment(base, folder=Path(folder), ports=PORTS, token="t", api_key=api_key, stream_limit_s=960)


def test_nothing_is_shared_with_another_cluster() -> None:
    one, two = env_of("/run/cld-1", {}, None), env_of("/run/cld-2", {}, None)
    shared = {name for name, value in one.items() if "/" in value and two[name] == value}
    assert shared == set()
    # The defaults that Ray 2.60 has in /tmp/haproxy-serve.
    for name in ("CONFIG_FILE_LOC", "SOCKET_PATH", "METRICS_SOCKET_PATH", "SERVER_STATE_BASE", "SERVER_STATE_FILE"):
        assert one[f"RAY_SERVE_HAPROXY_{name}"].startswith("/run/cld-1/")


def test_another_cluster_is_not_found_and_no_key_is_picked_up() -> None:
    base = {"RAY_ADDRESS": "10.0.0.1:6379", "VLLM_API_KEY": "somebody's", "HF_TOKEN": "kept"}
    env = env_of("/run/cld-1", base, None)
    assert "RAY_ADDRESS" not in env
    assert "VLLM_API_KEY" not in env
    assert env["HF_TOKEN"] == "kept"
    assert env["RAY_AUTH_MODE"] == "token"
    assert env_of("/run/cld-1", base, "ours")["VLLM_API_KEY"] == "ours"


def test_sockets_fit(tmp_path: Path) -> None:
    # HAProxy binds under a name of its own first, in a folder named after the node.
    longest = Path("/run/cld-12345678/h") / ("0" * 56) / "metrics.sock.4194304.tmp"
    assert len(str(longest)) <= 107
    session = Path("/run/cld-12345678/r/session_2026-11-23_00-11-26_090449_4194304/sockets/plasma_store")
    assert len(str(session)) <= 107


def test_ports_are_distinct() -> None:
    ports = choose_ports(0, seed=4321)
    chosen = [ports.http, ports.fallback, ports.haproxy_stats, ports.haproxy_metrics, ports.autoscaler_metrics]
    assert len({*chosen, ports.dashboard_metrics}) == 6
    assert 20000 <= ports.replicas < 32000
    assert choose_ports(8000, seed=1).http == 8000


def test_a_port_that_was_let_go_is_not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that gives the first that is free, as any may."""
    taken: set[int] = set()

    class Socket:
        def __enter__(self) -> Self:
            return self

        def bind(self, _: object) -> None:
            self.port = next(port for port in itertools.count(40_000) if port not in taken)
            taken.add(self.port)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", self.port

        def __exit__(self, *_: object) -> None:
            taken.discard(self.port)

    monkeypatch.setattr(ray_env.socket, "socket", Socket)
    test_ports_are_distinct()
    assert not taken


def started_with(config: str, folder: Path) -> list[str]:
    """What HAProxy reads of a configuration that Ray writes: its lines."""
    file = folder / "haproxy.cfg"
    file.write_text(config)
    wrapper = folder / "haproxy"
    wrapper.write_text(haproxy_wrapper("/bin/echo"))
    wrapper.chmod(0o700)
    said = subprocess.run([wrapper, "-db", "-f", file], capture_output=True, text=True, check=True)
    assert said.stdout == f"-db -f {file}\n"
    return [line.strip() for line in file.read_text().splitlines()]


def test_wrapper_keeps_statistics_on_loopback(tmp_path: Path) -> None:
    lines = started_with(
        "frontend prometheus\n    bind :9101\nfrontend f\n    bind 127.0.0.1:80\nlisten s\n  bind *:8404\n", tmp_path
    )
    assert [line for line in lines if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind 127.0.0.1:80",
        "bind 127.0.0.1:8404",
    ]


def test_wrapper_takes_the_splicing_of_requests_out(tmp_path: Path) -> None:
    config = "defaults\n    option abortonclose\n    option splice-request\n    option splice-response\n"
    assert started_with(config, tmp_path) == ["defaults", "option abortonclose", "option splice-response"]


def test_wrapper_in_a_pod_leaves_the_ports_open(tmp_path: Path) -> None:
    file, wrapper = tmp_path / "haproxy.cfg", tmp_path / "wrapper"
    file.write_text("defaults\n    option splice-request\nlisten s\n  bind *:8404\n")
    wrapper.write_text(haproxy_wrapper("/bin/true", loopback=False))
    wrapper.chmod(0o700)
    subprocess.run([wrapper, "-f", file], check=True)
    assert file.read_text() == "defaults\nlisten s\n  bind *:8404\n"


def test_engines_are_told_of_the_receiver_of_traces() -> None:
    base = {"OTEL_TRACES_EXPORTER": "none", "OTEL_SERVICE_NAME": "mine"}
    to = Address("http://collector:4318/v1/traces", "http/protobuf")
    env = environment(base, folder=Path("/r"), ports=PORTS, token="t", api_key=None, stream_limit_s=1, traces=to)
    found = {name: value for name, value in env.items() if name.startswith("OTEL_")}
    assert found == {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_SERVICE_NAME": "mine",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    assert env_of("/r", base, None)["OTEL_TRACES_EXPORTER"] == "none"

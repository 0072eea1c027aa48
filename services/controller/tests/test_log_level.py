"""The log level of a running controller, which needs no API server for it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import yaml

from tests.support.processes import BIN, Server
from tests.support.waiting import until


def test_signals_change_the_level(tmp_path: Path) -> None:
    nowhere = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    kubeconfig, config = tmp_path / "kubeconfig", tmp_path / "controller.yaml"
    kubeconfig.write_text(yaml.safe_dump(nowhere))
    settings = {"listen": {"port": 0}, "kubernetes": {"kubeconfig": str(kubeconfig)}, "log_level": "error"}
    config.write_text(yaml.safe_dump(settings))
    with Server([BIN / "cloudach-controller", "--config", config]) as controller:

        def levels() -> list[str]:
            lines = [json.loads(line) for line in controller.output.splitlines() if line.startswith("{")]
            return [line["log_level"] for line in lines if "log_level" in line]

        controller.process.send_signal(signal.SIGUSR1)
        until(lambda: levels() == ["debug"])
        controller.process.send_signal(signal.SIGUSR2)
        until(lambda: levels() == ["debug", "error"])
        controller.process.send_signal(signal.SIGUSR1)
        until(lambda: levels() == ["debug", "error", "debug"])
        assert httpx.get(f"{controller.url}/healthz", timeout=30).status_code == 200

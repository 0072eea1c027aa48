"""This process holds the Ray cluster: it starts it, deploys the applications, and is its driver until the end.

The supervisor runs it with the environment of `ray_env`. The plan comes on standard input, and events leave on standard
output. All that Ray and the engines print goes to standard error. It ends with its supervisor, and the cluster with it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from ..replica.app import App
from .events import Event, encode
from .processes import adopt_orphans, end_descendants


class Told:
    """The supervisor writes one line of JSON to us. The end of file follows when the supervisor dies."""

    def __init__(self, source: TextIO) -> None:
        raw: dict[str, Any] = json.loads(source.readline())
        self.apps = [App(**fields) for fields in raw["apps"]]
        self.folder = Path(raw["folder"])
        self.http_port: int = raw["http_port"]
        self.cpus: int = raw["cpus"]
        self.gpus: int = raw["gpus"]


def main() -> None:
    adopt_orphans()
    told = Told(sys.stdin)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        events.write(encode(event))

    try:
        _serve(told, tell)
    except Exception as error:
        tell(Event("failed", text=f"{type(error).__name__}: {error}"))
        raise


def _end_with_supervisor() -> None:
    sys.stdin.read()
    end_descendants(grace_s=2)
    os._exit(1)


def _serve(told: Told, tell: Any) -> None:
    tell(Event("step", text="starting Ray"))
    import ray
    from ray import serve

    ray.init(
        address="local",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(told.folder / "r"),
        num_cpus=told.cpus,
        num_gpus=told.gpus,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        namespace="serve",
    )
    tell(Event("step", text="starting Ray Serve and its HAProxy ingress"))
    # With an explicit host HAProxy and the replicas keep to it; without one, HAProxy mode opens them on all interfaces.
    serve.start(http_options={"host": "127.0.0.1", "port": told.http_port})
    tell(Event("step", text="starting the engines"))
    from ..applications import build

    targets = []
    for app in told.apps:
        try:
            target = build(app)
        except Exception as error:
            tell(Event("failed", app=app.slug, text=f"{type(error).__name__}: {error}"))
            raise
        targets.append(serve.RunTarget(target=target, name=app.slug, route_prefix=f"/{app.slug}"))
    serve.run_many(
        targets,
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    _watch({app.slug for app in told.apps}, tell)


def _watch(waiting: set[str], tell: Any) -> None:
    """Reports each application once. Afterwards Serve repairs what breaks, and this process only has to stay."""
    from ray import serve

    while True:
        # An exception here means that the cluster is gone.
        for name, app in serve.status().applications.items():
            if name not in waiting:
                continue
            if app.status == "RUNNING":
                waiting.discard(name)
                tell(Event("deployed", app=name))
            elif app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                waiting.discard(name)
                tell(Event("failed", app=name, text=_message(app)))
        time.sleep(0.25 if waiting else 5)


def _message(app: Any) -> str:
    parts = [app.message, *(deployment.message for deployment in app.deployments.values())]
    return "\n".join(part for part in parts if part)


if __name__ == "__main__":
    main()

"""A local Ray with its dashboard, as a RayCluster's head has it: python -m …ray_cluster FOLDER HTTP_PORT DASHBOARD_PORT

Says `ray is up` when Serve's REST API can be used, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from cloudach_inference.local.processes import adopt_orphans, end_descendants


def main(folder: str, http_port: str, dashboard_port: str) -> None:
    adopt_orphans()
    ended = threading.Event()

    def end_with_the_parent() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    import ray
    from ray import serve

    ray.init(
        address="local",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(Path(folder) / "r"),
        num_cpus=16,
        num_gpus=0,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=int(dashboard_port),
        object_store_memory=100 * 2**20,
        namespace="serve",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(http_port)})
    print("ray is up", flush=True)
    ended.wait()
    end_descendants(grace_s=3)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The script of `helm test`, run as its pod runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.support.helm import CHART
from tests.support.processes import BIN
from tests.support.stack import Gateway

SCRIPT = CHART / "files" / "helm_test.py"


def helm_test(gateway: Gateway, **changes: Any) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "GATEWAY_URL": gateway.url,
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": str(gateway.config["listen"]["metrics_port"]),
        "MODEL": "",
        "TIMEOUT_S": "120",
        "CLOUDACH_CONFIG": str(gateway.config_file),
        **changes,
    }
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

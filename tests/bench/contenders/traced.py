"""Our gateway with traces: what they cost where none is sampled, and where all are.

make bench ONLY=direct,haproxy,cloudach,cloudach-otel-unsampled,cloudach-otel-all
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.bench.machine import on_all_cores
from tests.support.processes import Server
from tests.support.stack import Gateway

from .cloudach import Cloudach


class _Traced(Cloudach):
    usual = False
    ratio: ClassVar[float]
    _receiver: Server | None = None

    def _start_gateway(self, config: Mapping[str, Any]) -> Gateway:
        with on_all_cores():
            self._receiver = Server([sys.executable, "-m", "tests.bench.contenders.receiver"])
        traces = {"endpoint": self._receiver.url, "ratio": self.ratio}
        return super()._start_gateway({**config, "telemetry": {"traces": traces}})

    def stop(self) -> None:
        super().stop()
        if self._receiver:
            self._receiver.stop()


class Unsampled(_Traced):
    name = "cloudach-otel-unsampled"
    title = "Cloudach, traces unsampled"
    ratio = 0.0


class AllSampled(_Traced):
    name = "cloudach-otel-all"
    title = "Cloudach, all traces"
    ratio = 1.0

"""cloudach-gateway: the edge gateway, alone, in front of any OpenAI-compatible engines."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloudach_service import logs
from cloudach_service.log_level import LevelSignals

from .settings import OWN_LOGGERS, ConfigError, Settings, load


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="cloudach-gateway", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("CLOUDACH_CONFIG"),
        help="the YAML file with its settings (default: $CLOUDACH_CONFIG); docs/reference/settings.md lists them all",
    )
    parser.add_argument("--check", action="store_true", help="only check the settings")
    options = parser.parse_args(arguments)
    if options.config is None:
        parser.error("--config is required")
    try:
        settings = load(options.config)
    except ConfigError as error:
        print(f"cloudach-gateway: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config}: good")
        return 0
    return _run(settings)


def _run(settings: Settings) -> int:
    started_ns = time.time_ns()
    logs.configure("gateway", level=settings.log_level)
    level = LevelSignals(*OWN_LOGGERS)
    level.catch()
    _allow_many_connections()
    with contextlib.ExitStack() as stack:
        if settings.listen.processes > 1:
            # Has to be known before the first metric is made, that is before the modules below are imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="cloudach-")
            )
        from cloudach_service import metrics
        from cloudach_service.traces import settings as traces

        from . import exports, supervisor, worker
        from .store.embedded import EmbeddedError, redis_server

        try:
            traces.exporting(settings.telemetry.traces, os.environ)
            exports.check(settings.telemetry)
            if settings.kubernetes.enabled:
                from .catalog.cluster import find_access

                find_access(settings.kubernetes)
            listener = stack.enter_context(_listen(settings))
            redis_url = stack.enter_context(redis_server(settings.redis))
            if settings.listen.metrics_port is not None:
                metrics.serve(settings.listen.host, settings.listen.metrics_port)
        except (OSError, EmbeddedError, ConfigError) as error:
            print(f"cloudach-gateway: {error}", file=sys.stderr)
            return 1
        stack.enter_context(exports.of_logs(settings.telemetry))
        stack.enter_context(exports.of_metrics(settings.telemetry, started_ns))
        host, port = listener.getsockname()[:2]
        print(f"listening on http://{host}:{port}", flush=True)
        serve = worker.run if settings.listen.processes == 1 else supervisor.run
        serve(settings, redis_url, listener, level)
        listener.close()  # whoever comes while the last is exported would wait in vain
    return 0


def _allow_many_connections() -> None:
    """Raises the soft limit of descriptors: a stream takes two, and the usual 1,024 would end at 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    address = (settings.listen.host, settings.listen.port)
    family = socket.AF_INET6 if ":" in settings.listen.host else socket.AF_INET
    try:
        listener = socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
    listener.set_inheritable(True)
    with listener:
        yield listener


if __name__ == "__main__":
    sys.exit(main())

"""cloudach-stack: the whole platform on one machine."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from .children import ChildFailed, Children
from .config import ConfigError, load
from .state import AlreadyRunning, held, stop
from .up import Options, StartFailed, check_gateway, say, up


class _Stop(Exception):
    """A signal asked this process to end."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    folder: Path = options.state_dir.absolute()
    if options.command == "down":
        try:
            say("stopped" if stop(folder) else "nothing runs here")
        except TimeoutError as error:
            say(str(error))
            return 1
        return 0
    try:
        wanted = Options(options.engine, options.port, folder, load(options.config), options.engine_python.absolute())
        if options.check:
            return _check(wanted)
        with held(folder):
            return _run(wanted)
    except ConfigError as error:
        print(f"cloudach-stack: {error}", file=sys.stderr)
        return 2
    except AlreadyRunning as error:
        say(str(error))
        return 2


def _check(options: Options) -> int:
    """Checks the settings. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="cloudach-") as folder:  # the state folder may be that of a running stack
        check_gateway(options, Path(folder))
    print("the settings are good")
    return 0


def _run(options: Options) -> int:
    def stop_now(number: int, _: FrameType | None) -> None:
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(again, signal.SIG_IGN)  # one signal is enough, because ending in order takes a moment
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_now)
    try:
        with Children() as children:
            up(options, children)
            while True:
                time.sleep(0.5)
                children.check()
    except _Stop:
        say("stopped")
        return 0
    except (StartFailed, ChildFailed) as error:
        say(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cloudach-stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start everything and stay in the foreground")
    start.add_argument(
        "--engine",
        choices=("vllm", "sim", "ray-sim"),
        default="vllm",
        help="vllm: real models under Ray Serve; sim: the simulator, one process; ray-sim: it under Ray Serve",
    )
    start.add_argument(
        "--port", type=int, default=8080, help="the gateway's, on 127.0.0.1 (default: 8080; 0: a free one)"
    )
    start.add_argument("--config", type=Path, help="a YAML file with models of your own: docs/configuration.md")
    start.add_argument("--check", action="store_true", help="only check the settings, those of the gateway too")
    start.add_argument(
        "--engine-python", type=Path, default=Path(".venv-vllm/bin/python"), help="the Python that has vLLM installed"
    )
    down = commands.add_parser("down", help="end what `up` started in this folder")
    for command in (start, down):
        command.add_argument("--state-dir", type=Path, default=Path(".run"), help="logs, data, keys (default: .run)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""cloudach-inference serves real models, or the simulator, under Ray Serve on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .cache import cache_root
from .local import weights
from .local.config import ConfigError, load
from .local.plan import PlanError
from .local.supervisor import StartFailed, Stopped, Supervisor


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "weights":
            folder = options.folder or weights.default_folder(cache_root(None))
            weights.prepare(folder.absolute(), say)
            return 0
        settings = load(options.config)
        if options.check:
            say(f"{options.config}: good")
            return 0
        Supervisor(settings, say).run(options.ready_file)
    except Stopped:
        say("stopped")
        return 0
    except KeyboardInterrupt:
        return 130
    except (ConfigError, PlanError) as error:
        complain(str(error))
        return 2
    except (StartFailed, weights.WeightsError) as error:
        complain(str(error))
        return 1
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def complain(text: str) -> None:
    print(f"cloudach-inference: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cloudach-inference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start the engines and stay in the foreground")
    serve.add_argument("--config", type=Path, required=True, help="the YAML file with its settings: docs/inference.md")
    serve.add_argument("--check", action="store_true", help="only check the settings")
    serve.add_argument("--ready-file", type=Path, help="JSON with each model's base URL, written when all answer")
    prepare = commands.add_parser("weights", help="prepare the default model's weights")
    prepare.add_argument("--folder", type=Path, help="where to (default: in ~/.cache/cloudach)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""cloudach-controller: makes a RayService of each Model, and tells in the Model's status how it does."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from cloudach_service import logs
from cloudach_service.log_level import LevelSignals
from cloudach_service.settings.reference import help_text

from .settings import ConfigError, Settings, load


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cloudach-controller",
        description=__doc__,
        epilog=help_text(Settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("CLOUDACH_CONFIG"),
        help="the YAML file with its settings (default: $CLOUDACH_CONFIG)",
    )
    parser.add_argument("--check", action="store_true", help="only check the settings")
    options = parser.parse_args(arguments)
    if options.config is None:
        parser.error("--config is required")
    try:
        settings = load(options.config)
    except ConfigError as error:
        print(f"cloudach-controller: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.config}: good")
        return 0
    logs.configure("controller", level=settings.log_level)
    level = LevelSignals("cloudach", "cloudach_controller", "cloudach_kube")
    level.catch()
    from .app import run

    return asyncio.run(run(settings, level))


if __name__ == "__main__":
    sys.exit(main())

"""cloudach: administer a Cloudach installation.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ...settings import ConfigError
from ...store.embedded import EmbeddedError
from ...store.trouble import StoreDown
from ..keys import InDoubt, KeyProblem
from . import keys, usage
from .target import NoTarget, redis_url
from .terminal import nobody_reads, take_any_text
from .values import WrongUsage


def main(arguments: Sequence[str] | None = None) -> int:
    take_any_text()
    options = build_parser().parse_args(arguments)
    try:
        with redis_url(options.redis_url, options.config) as url:
            code: int = options.run(options, url)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except BrokenPipeError:
        nobody_reads()
        return 1
    except KeyboardInterrupt:
        return 130
    except InDoubt as error:
        print(f"cloudach: {error}", file=sys.stderr)
        print(f"This key may be in force, try it: {error.api_key}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk behind stdout, or a file that cannot be read
        print(f"cloudach: {error}", file=sys.stderr)
        nobody_reads()
        return 1
    except (ConfigError, NoTarget, WrongUsage) as error:
        print(f"cloudach: {error}", file=sys.stderr)
        return 2
    except (KeyProblem, usage.UsageProblem, StoreDown, EmbeddedError) as error:
        print(f"cloudach: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloudach", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    where = _where()
    keys.add_to(commands, where)
    usage.add_to(commands, where)
    return parser


def _where() -> argparse.ArgumentParser:
    """Makes the options that every command has."""
    common = argparse.ArgumentParser(add_help=False)
    where = common.add_argument_group("which installation")
    where.add_argument(
        "--redis-url",
        default=os.environ.get("CLOUDACH_REDIS_URL"),
        metavar="URL",
        help="the Redis that the gateways use (default: $CLOUDACH_REDIS_URL); for one without a password "
        "$CLOUDACH_REDIS_PASSWORD is taken",
    )
    where.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("CLOUDACH_CONFIG"),
        metavar="FILE",
        help="the gateway's configuration, to find its Redis or its embedded Valkey (default: $CLOUDACH_CONFIG)",
    )
    return common

"""Which Redis a command works on: named, configured, or the embedded Valkey, started for the moment if none runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...redis_address import with_password
from ...settings import load
from ...store.embedded import EmbeddedValkey, running_url


class NoTarget(Exception):
    """The options and the environment name no Redis, or one that cannot be used."""


@contextmanager
def redis_url(url: str | None, config: Path | None) -> Iterator[str]:
    """Yields the URL of the installation's Redis. Raises NoTarget, ConfigError, EmbeddedError."""
    if url is None and config is None:
        raise NoTarget(
            "name the installation: --config FILE or --redis-url URL (or $CLOUDACH_CONFIG, $CLOUDACH_REDIS_URL)"
        )
    if url is None and config is not None:
        settings = load(Path(config)).redis
        url = settings.target or running_url(settings.data_dir)
        if url is None:
            with EmbeddedValkey(settings.data_dir) as valkey:
                yield valkey.url
            return
    assert url is not None
    yield with_password(url, os.environ.get("CLOUDACH_REDIS_PASSWORD"))

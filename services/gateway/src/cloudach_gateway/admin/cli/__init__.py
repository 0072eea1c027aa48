"""The command line `cloudach`, which operators type."""

from .main import main

__all__ = ["main"]

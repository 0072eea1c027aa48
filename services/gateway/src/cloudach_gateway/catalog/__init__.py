"""Which models there are, under which names, and where their engines listen."""

from .catalog import Catalog, ServedModel

__all__ = ["Catalog", "ServedModel"]

"""Which models there are, under which names, where their engines listen, and whether they can be asked now."""

from .catalog import Catalog
from .served import Absence, Resource, ServedModel, Why, of_file

__all__ = ["Absence", "Catalog", "Resource", "ServedModel", "Why", "of_file"]

"""Knows which models there are, their names, where their engines listen, and which of them can be asked now."""

from .catalog import Catalog
from .served import Absence, Resource, ServedModel, Why, of_file

__all__ = ["Absence", "Catalog", "Resource", "ServedModel", "Why", "of_file"]

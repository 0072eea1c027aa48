"""Tables, remarks and the plot of one benchmark."""

from __future__ import annotations

from .document import NoPlace, as_markdown, as_text, write
from .report import Report

__all__ = ["NoPlace", "Report", "as_markdown", "as_text", "write"]

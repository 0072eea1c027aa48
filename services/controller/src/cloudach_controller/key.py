"""A key names one namespaced object, in nearly all cases a Model."""

from __future__ import annotations

Key = tuple[str, str]
"""The namespace and the name."""

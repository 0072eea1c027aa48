"""Sends messages with traces."""

from __future__ import annotations

from ..otlp import senders
from ..otlp.senders import Sender
from .settings import Exporting


def sender(exporting: Exporting) -> Sender:
    """Returns a sender that has not connected yet."""
    return senders.sender("traces", exporting.endpoint, exporting.protocol)

"""Admission: who may call, how often, with how many tokens and streams; and what was used in the end."""

from .admission import Admission
from .grants import Grant
from .refusals import refusal

__all__ = ["Admission", "Grant", "refusal"]

"""The request alone does not need more tokens than the API key has in a minute. If it does, waiting does not help."""

from ...errors import NeverFits
from ..check import Alone, Check, Refusal, Refused


def _never_fits(refusal: Refusal) -> NeverFits:
    return NeverFits(
        f"Request too large: it needs up to {refusal.ask.tokens} tokens, and the limit of this key is "
        f"{refusal.limits.tokens} tokens per minute. Shorten the prompt or lower max_tokens.",
    )


def _alone(seen: Alone) -> Refused | None:
    most = seen.record.limits.tokens
    return Refused("never") if most is not None and seen.ask.tokens > most else None


SIZE = Check(
    name="size",
    lua="""
if tpm and cost > tpm then return answer('never') end
""",
    refusals={"never": _never_fits},
    alone=_alone,
)

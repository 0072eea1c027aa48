"""The API key is not disabled."""

from ...errors import PermissionDenied
from ..check import Alone, Check, Refused


def _alone(seen: Alone) -> Refused | None:
    return Refused("disabled") if seen.record.disabled else None


DISABLED = Check(
    name="disabled",
    of_key=True,
    lua="""
if RECORD.disabled == '1' then return answer('disabled') end
""",
    refusals={"disabled": lambda _: PermissionDenied("This API key is disabled.", code="key_disabled")},
    alone=_alone,
)

"""The API key may use the model that the request names, by any of the model's names."""

from ...errors import PermissionDenied
from ..check import Alone, Check, Refused


def not_allowed(model: str) -> PermissionDenied:
    return PermissionDenied(f"This API key may not use the model `{model}`.", code="model_not_allowed", param="model")


def _alone(seen: Alone) -> Refused | None:
    return None if seen.record.allows(seen.ask.models) else Refused("model")


MODEL = Check(
    name="model",
    lua=r"""
if RECORD.models and RECORD.models ~= '' then -- each name has a newline before and after it
  local allowed = false
  for name in string.gmatch(ARG.models, '[^\n]+') do
    if string.find(RECORD.models, '\n' .. name .. '\n', 1, true) then
      allowed = true
      break
    end
  end
  if not allowed then return answer('model') end
end
""",
    refusals={"model": lambda refusal: not_allowed(refusal.ask.models[0] if refusal.ask.models else "")},
    alone=_alone,
)

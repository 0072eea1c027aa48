"""The API key exists, and the request shows its secret or one that a rotation has not ended yet."""

from ...errors import InvalidApiKey
from ..check import Check

KNOWN = Check(
    name="known",
    of_key=True,
    lua="""
if not RECORD.hash then return {'unknown'} end
if RECORD.hash ~= ARG.digest then
  local till = RECORD.prev_valid_until_ms
  if RECORD.prev_hash ~= ARG.digest then -- a secret of before the last rotation: "<digest>:<ms>", one a line
    till = string.match(redis.call('HGET', KEY.record, 'older') or '', ARG.digest .. ':(%d+)')
  end
  if now >= (tonumber(till) or 0) * 1000 then return {'unknown'} end
end
RECORD.hash, RECORD.prev_hash = '', '' -- the hashes stay in Redis
""",
    refusals={"unknown": lambda _: InvalidApiKey("Incorrect API key provided.")},
)
"""Without Redis, `LocalLimiter` itself knows which secrets Redis has accepted lately."""

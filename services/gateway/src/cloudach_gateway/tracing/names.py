"""The names in spans.

HTTP's are OpenTelemetry's semantic conventions 1.37 (stable). Those that begin with `gen_ai.` are its GenAI conventions
v0.1.0 (https://github.com/open-telemetry/semantic-conventions-genai, in development). The rest is ours.
"""

from __future__ import annotations

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_SCHEME = "url.scheme"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"

REQUEST_ID = "cloudach.request_id"
TENANT = "cloudach.tenant"
KEY_ID = "cloudach.key_id"
OUTCOME = "cloudach.outcome"
FIRST_TOKEN_S = "cloudach.time_to_first_token"
KEPT = "cloudach.kept"
"""Why the trace was exported although it was not sampled: `error`, `failover`, `slow`. Its engine has no span."""
REDIS_S = "cloudach.redis.round_trip"
TURN = "cloudach.turn.kind"
ATTEMPT = "cloudach.attempt.number"
ATTEMPT_END = "cloudach.attempt.end"
AFTER_TOKENS = "cloudach.failover.after_tokens"
FAILOVER_S = "cloudach.failover.duration"

FAILOVER_EVENT = "cloudach.failover"

"""Labels of metrics are bounded, whatever an engine says."""

from __future__ import annotations

from cloudach_gateway import metrics
from cloudach_gateway.errors import InvalidRequest
from cloudach_gateway.record import AttemptRecord, RequestRecord


def test_codes_that_an_engine_invents_make_no_series() -> None:
    for number in range(100):
        record = RequestRecord("POST", "/v1/chat/completions", route="chat/completions", model="m-of-codes")
        record.attempts.append(AttemptRecord("http://engine:1", [], "vllm"))
        record.status, record.outcome = 400, "failed"
        record.end_with(InvalidRequest("no", code=f"invented-{number}"))
        metrics.observe(record, 0.1)
    (family,) = metrics.GEN_AI_DURATION.collect()
    counts = {
        sample.labels["error_type"]: sample.value
        for sample in family.samples
        if sample.name.endswith("_count") and sample.labels["gen_ai_request_model"] == "m-of-codes"
    }
    assert counts == {"invalid_request_error": 100}

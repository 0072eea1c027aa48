"""`traceparent` as the standard has it, and as hostile clients write it."""

from __future__ import annotations

import os

import pytest
from cloudach_service.traces import w3c
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.w3c import Parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("02", False), ("03", True), ("ff", True)])
def test_a_valid_one(flags: str, sampled: bool) -> None:
    found = w3c.parse(f"00-{TRACE}-{SPAN}-{flags}".encode())
    assert found == Parent(int(TRACE, 16), int(SPAN, 16), sampled)


def test_a_later_version_may_be_longer() -> None:
    assert w3c.parse(f"cc-{TRACE}-{SPAN}-01-what-comes".encode()) is not None
    assert w3c.parse(f"cc-{TRACE}-{SPAN}-01".encode()) is not None
    assert w3c.parse(f"cc-{TRACE}-{SPAN}-01.".encode()) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-zz",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 10_000,
        "é" * 55,
    ],
)
def test_what_is_not_valid_is_ignored(header: str) -> None:
    assert w3c.parse(header.encode()) is None


def test_what_is_written_is_read() -> None:
    for sampled in (True, False):
        trace_id, span_id = w3c.new_trace_id(), w3c.new_span_id()
        assert w3c.parse(w3c.written(trace_id, span_id, sampled=sampled)) == Parent(trace_id, span_id, sampled)
    assert w3c.written(1, 2, sampled=True) == b"00-00000000000000000000000000000001-0000000000000002-01"


def test_a_forked_process_draws_other_ids() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"%032x" % w3c.new_trace_id())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reading, 100), 16) != w3c.new_trace_id()


def test_the_ratio_is_that_of_the_sdk() -> None:
    from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

    for ratio in (0.0, 0.01, 0.5, 1.0):
        theirs, ours = TraceIdRatioBased(ratio), Sampling(ratio)
        for trace_id in (1, 2**63, 2**64 - 1, 2**128 - 1, *(w3c.new_trace_id() for _ in range(500))):
            asked = theirs.should_sample(None, trace_id, "n").decision is Decision.RECORD_AND_SAMPLE
            assert ours.samples(trace_id, None) == asked


def test_a_parent_decides_only_where_it_is_followed() -> None:
    for sampled in (True, False):
        parent = Parent(5, 6, sampled)
        assert Sampling(0.0, follows_parent=True).samples(5, parent) is sampled
        assert Sampling(1.0, follows_parent=False).samples(5, parent) is True
        assert Sampling(0.0, follows_parent=False).samples(5, parent) is False

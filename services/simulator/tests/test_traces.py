"""The span of a request, as vLLM makes it. What a receiver gets of it: tests/data_plane/test_traces_engine.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import httpx
import pytest
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.spans import Kind, Span
from cloudach_simulator.traces import Traces

from .conftest import Sim, StartSim
from .sim_process import SimProcess

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Kept:
    """Keeps what would be exported."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def put(self, trace: Callable[[], Sequence[Span]]) -> None:
        self.spans += trace()

    def close(self, timeout_s: float) -> None:
        """Does nothing, because nothing waits."""


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
async def sim(start_sim: StartSim, kept: Kept) -> Sim:
    return await start_sim(traces=Traces(kept, Sampling()))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_has_vllms_span_below_its_parent(sim: Sim, kept: Kept, stream: bool) -> None:
    answer = await sim.chat(max_tokens=7, stream=stream, headers={**SAMPLED, "x-request-id": "r1"})
    assert answer.status_code == 200
    (span,) = kept.spans
    assert (f"{span.trace_id:032x}", f"{span.parent_id:016x}", span.remote_parent) == (TRACE, PARENT, True)
    assert (span.name, span.kind, span.error) == ("llm_request", Kind.SERVER, None)
    assert 0 < span.start_ns <= span.end_ns
    times = {name: value for name, value in span.attributes.items() if name.startswith("gen_ai.latency.")}
    assert {name: value for name, value in span.attributes.items() if name not in times} == {
        "gen_ai.request.id": "chatcmpl-r1",
        "gen_ai.request.n": 1,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.usage.prompt_tokens": (await sim.http.get("/sim/requests")).json()["data"][0]["prompt_tokens"],
        "gen_ai.usage.completion_tokens": 7,
    }
    assert set(times) == {
        f"gen_ai.latency.{name}"
        for name in (
            *("e2e", "time_in_queue", "time_to_first_token"),
            *(f"time_in_model_{part}" for part in ("prefill", "decode", "inference")),
        )
    }
    assert all(isinstance(value, float) and value >= 0 for value in times.values())


async def test_each_choice_has_one(sim: Sim, kept: Kept) -> None:
    await sim.chat(max_tokens=3, n=2, headers=SAMPLED)
    assert len(kept.spans) == 2
    assert len({span.span_id for span in kept.spans}) == 2
    assert {span.parent_id for span in kept.spans} == {int(PARENT, 16)}


async def test_what_is_not_sampled_has_none(sim: Sim, kept: Kept) -> None:
    await sim.chat(max_tokens=1, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert kept.spans == []


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_without_a_parent_the_ratio_decides(start_sim: StartSim, kept: Kept, ratio: float) -> None:
    sim = await start_sim(traces=Traces(kept, Sampling(ratio)))
    await sim.chat(max_tokens=1)
    await sim.chat(max_tokens=1, headers={"traceparent": "nonsense"})
    assert len(kept.spans) == 2 * ratio
    assert [span.parent_id for span in kept.spans] == [0] * len(kept.spans)
    assert len({span.trace_id for span in kept.spans}) == len(kept.spans)


async def test_a_client_that_leaves_ends_it(start_sim: StartSim, kept: Kept) -> None:
    sim = await start_sim(traces=Traces(kept, Sampling()), rate=100.0)
    asked = asyncio.ensure_future(sim.chat(max_tokens=5000, stream=True, headers=SAMPLED))
    await sim.runs(1, tokens=5)
    asked.cancel()
    await sim.settled()
    (span,) = kept.spans
    assert span.attributes["gen_ai.response.finish_reasons"] == ("abort",)
    completion = span.attributes["gen_ai.usage.completion_tokens"]
    assert isinstance(completion, int)
    assert 5 <= completion < 5000


@pytest.mark.parametrize(
    ("fault", "told"),
    [("end@3", [True]), ("abort@3", [True]), ("shutdown@3", [False]), ("error@3", []), ("engine@3", []), ("die@3", [])],
)
async def test_of_what_breaks_off_all_but_a_dead_engine_tells(
    sim: Sim, kept: Kept, fault: str, told: list[bool]
) -> None:
    """`told`: whether the span says that it was aborted, if there is one."""
    is_cut = fault.startswith(("abort", "die"))
    with pytest.raises(httpx.TransportError) if is_cut else nullcontext():
        await sim.chat(max_tokens=30, stream=True, headers={**SAMPLED, "x-sim-fault": fault})
    await sim.settled()
    assert ["gen_ai.response.finish_reasons" in span.attributes for span in kept.spans] == told
    assert [span.attributes["gen_ai.usage.completion_tokens"] for span in kept.spans] == [3] * len(told)


async def test_a_refusal_has_none(sim: Sim, kept: Kept) -> None:
    assert (await sim.chat(model="nobody", headers=SAMPLED)).status_code == 404
    assert kept.spans == []


@pytest.mark.parametrize(
    ("options", "env", "said"),
    [
        (("--traces-endpoint", "collector"), {}, "--traces-endpoint"),
        (("--traces-endpoint", "http://c:1", "--traces-protocol", "udp"), {}, "--traces-protocol"),
        ((), {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: it is no URL"),
    ],
)
def test_a_bad_setting_is_named(
    options: tuple[str, ...], env: dict[str, str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError):
        SimProcess(*options, env=env).start()
    assert said in capfd.readouterr().err

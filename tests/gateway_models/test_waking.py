"""A request for a Model that sleeps wakes it and waits; the tests are the controller that wakes it."""

from __future__ import annotations

import calendar
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway_models.conftest import SLEEPS, Site, settings
from tests.gateway_models.waking import USED, WAKE, put_to_sleep, stream, wake
from tests.support.helm_test import helm_test
from tests.support.ports import free_port
from tests.support.stack import create_key, start_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first test waits for an API server


def test_a_stream_waits_with_heart_beats(site: Site) -> None:
    put_to_sleep(site, "llama")
    with stream(site, "llama") as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": keep-alive"
        wake(site, "llama")
        rest = [line for line in lines if line]
    assert answer.status_code == 200
    assert rest[-1] == "data: [DONE]"
    assert sum('"content"' in line for line in rest) >= 5
    assert not any('"error"' in line for line in rest)
    # The API server's answers to the wish and to the mark may come later than the Model.
    until(lambda: site.metric("cloudach_model_wakes_total", model="llama"))
    assert site.metric("cloudach_model_wakes_total", model="llama") == 1
    waited = site.metric("cloudach_model_wait_seconds_count", model="llama", outcome="ready")
    assert waited == 1
    until(lambda: USED in site.told("llama"))


def test_whole_answers_wait_too_and_one_wish_is_enough(site: Site) -> None:
    put_to_sleep(site, "many")
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(site.ask, "many") for _ in range(20)]
        wake(site, "many")
        assert [answer.result().status_code for answer in answers] == [200] * 20
    woken = until(lambda: [line for line in site.logged("a model is woken") if line["resource"] == "serving/many"])
    assert len(woken) == 1


def test_a_model_that_cannot_start_ends_the_wait(site: Site) -> None:
    put_to_sleep(site, "broken")
    with stream(site, "broken") as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": keep-alive"
        site.status("broken", "Failed")
        rest = [line for line in lines if line.startswith("data:")]
    assert len(rest) == 1
    assert '"model_not_ready"' in rest[0]


def test_who_leaves_frees_its_slot(site: Site) -> None:
    key = create_key(site.gateway, name="one-at-a-time", concurrent_streams=1)
    put_to_sleep(site, "llama2")
    with stream(site, "llama2", key=key) as answer:
        lines = answer.iter_lines()  # httpx closes a stream whose iterator is let go
        assert next(lines) == ": keep-alive"
        assert site.ask("llama2", key=key).status_code == 429, "who waits holds its slot, as one who is queued"
    left = until(
        lambda: [line for line in site.gateway.requests if line.get("model") == "llama2" and line.get("stream")]
    )
    assert left[0]["outcome"] == "cancelled"
    site.status("llama2", "Ready", ready=1)
    until(lambda: site.ask("llama2", key=key).status_code == 200)


def test_a_model_in_use_is_marked(site: Site) -> None:
    site.ready("busy", **SLEEPS)
    first = until(lambda: site.told("busy").get(USED))
    site.sim.configure(rate=5)
    with stream(site, "busy", tokens=1500):  # five minutes, unless its client leaves
        until(lambda: site.told("busy")[USED] > first)
        second = site.told("busy")[USED]
        until(lambda: site.told("busy")[USED] > second)
        assert site.metric("cloudach_running_requests") == 1, "one request, several marks"
    site.sim.configure(rate=500)


def test_a_model_that_never_sleeps_is_not_written_to(site: Site) -> None:
    site.ready("steady")
    assert not {WAKE, USED} & site.told("steady").keys()


def test_the_wait_ends_in_time_with_a_truthful_answer(site: Site, kubeconfig: Path) -> None:
    """First nothing is known of its waking; then that it takes longer than anybody may wait."""
    put_to_sleep(site, "slow")
    port = free_port()
    # It is asked to wake once: each wish would change how long it took.
    short = settings(kubeconfig, port, wake_wait_s=1.0, wake_wait_whole_s=0.5, wake_again_s=300)
    with start_gateway(short) as gateway:
        impatient = Site(site.cluster, site.sim, gateway, create_key(gateway), port)
        began = time.monotonic()
        answer = impatient.ask("slow")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
        assert time.monotonic() - began >= 0.5
        assert int(answer.headers["retry-after"]) >= 1
        with stream(impatient, "slow") as streamed:
            lines = [line for line in streamed.iter_lines() if line]
        assert lines[0] == ": keep-alive"
        assert '"model_not_ready"' in lines[-1]
        asked = until(lambda: site.told("slow").get(WAKE))

        # It woke 40 s after it was asked to, and sleeps again.
        woke = _later(asked, 40)
        ready = {"type": "Ready", "status": "True", "reason": "X", "message": "-", "lastTransitionTime": woke}
        site.status("slow", "Ready", ready=1, conditions=[ready], wakeRequestedAt=asked)
        until(lambda: impatient.code("slow")[0] == 200)
        site.status("slow", "Sleeping")
        until(lambda: impatient.code("slow")[0] == 503)

        def waited() -> float:
            """By all requests that were told so, in s."""
            return impatient.metric("cloudach_model_wait_seconds_sum", model="slow", outcome="not_ready") or 0

        before = waited()
        answer = impatient.ask("slow")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) == 40
        with stream(impatient, "slow") as streamed:
            assert streamed.status_code == 503, "without a heart-beat"
        assert waited() - before < 0.5, "nobody waits in vain"


@pytest.mark.parametrize("patience", [0.1, 3.0])
def test_helm_test_wakes_a_model_and_waits_for_it(site: Site, kubeconfig: Path, patience: float) -> None:
    """The gateway refuses it at first, or tells a stream that has had heart-beats."""
    name = f"tested-{patience:.0f}"
    put_to_sleep(site, name)
    port = free_port()
    short = settings(kubeconfig, port, wake_wait_s=patience, wake_wait_whole_s=0.1, wake_again_s=300)
    with start_gateway(short) as gateway, ThreadPoolExecutor(1) as pool:
        until(lambda: name in Site(site.cluster, site.sim, gateway, create_key(gateway), port).listed())
        testing = pool.submit(helm_test, gateway, MODEL=name)
        until(lambda: [line for line in gateway.requests if line.get("code") == "model_not_ready"])
        assert not testing.done()
        wake(site, name)
        done = testing.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"waiting for {name}" in done.stdout


def _later(moment: str, seconds: int) -> str:
    form = "%Y-%m-%dT%H:%M:%SZ"
    return time.strftime(form, time.gmtime(calendar.timegm(time.strptime(moment, form)) + seconds))

"""The log by OTLP: a receiver gets every line that is on stderr, and no receiver can hold a request up."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.data_plane.conftest import chat
from tests.data_plane.exported import Exported, exported
from tests.support.collector import LogRecord
from tests.support.stack import workers
from tests.support.waiting import until

NUMBERS = {"DEBUG": 5, "INFO": 9, "WARNING": 13, "ERROR": 17}
SECRETS = ("zanzibar-prompt", "kilimanjaro-user", "serengeti-baggage")


def lines(running: Exported) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.gateway.output.splitlines() if line.startswith("{")]


def as_line(record: LogRecord) -> dict[str, Any]:
    """Returns the line of stderr that says the same."""
    assert record.number == NUMBERS[record.severity]
    ids = {"trace_id": record.trace, "span_id": record.span} if record.trace else {}
    return {"level": record.severity.lower(), "event": record.event, **record.attributes, **ids}


def requests(running: Exported) -> set[str]:
    """Returns the ids of the requests whose records have come."""
    return {record.attributes["request_id"] for record in running.collector.records if record.event == "request"}


def without(line: dict[str, Any]) -> str:
    """Returns a line in a form that can be compared. A record has the resource's service and no null."""
    kept = {name: value for name, value in line.items() if name not in ("ts", "service") and value is not None}
    return json.dumps(kept, sort_keys=True)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_gets_every_line_of_every_process(protocol: str) -> None:
    with exported("logs", protocol=protocol, processes=2) as running:
        answers = [running.post() for _ in range(6)]
        running.sim.arm("http:500", times=1)
        answers += [running.post(), running.post(chat(model="unknown"))]
        ids = {answer.headers["x-request-id"] for answer in answers}
        until(lambda: ids <= requests(running), "all until here, because a killed process takes with it what waits")
        os.kill(workers(running.gateway)[0], signal.SIGKILL)  # the first process says so
        until(lambda: running.gateway.output.count('"event":"Redis is connected') == 3, "another process")
        answers.append(running.post())
        assert running.gateway.stop() == 0
        on_stderr, records = lines(running), running.collector.records
        assert requests(running) == ids | {answers[-1].headers["x-request-id"]}
        received = Counter(without(as_line(record)) for record in records)
        assert received == Counter(without(line) for line in on_stderr)
        assert "a worker process died and is replaced" in {record.event for record in records}
        assert len({record.process for record in records}) >= 3, "two that served last, and the first one"
        request = next(record for record in records if record.event == "request")
        written = next(line for line in on_stderr if line.get("request_id") == request.attributes["request_id"])
        assert abs(datetime.fromisoformat(written["ts"]).timestamp() - request.time_ns / 1e9) < 1


def test_a_record_has_the_ids_of_its_trace() -> None:
    env: dict[str, str | None] = {"OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR", "OTEL_LOGS_EXPORTER": "otlp"}
    with exported("logs", env=env) as running:
        answer = running.post()
        found = until(
            lambda: [
                record
                for record in running.collector.records
                if record.attributes.get("request_id") == answer.headers["x-request-id"]
            ],
            "its record",
        )
        (span,) = [span for span in running.collector.trace(found[0].trace, spans=4) if span.kind == "SERVER"]
        assert (span.trace, span.span, span.process) == (found[0].trace, found[0].span, found[0].process)
        assert not {"trace_id", "span_id"} & set(found[0].attributes)


def counted(running: Exported) -> Counter[str]:
    """Returns how many records were exported, and dropped for which reason."""
    said = running.scraped()
    found: Counter[str] = Counter()
    for reason, value in re.findall(r'^cloudach_logs_dropped_total\{reason="(\w+)"\} (\S+)$', said, re.M):
        found[reason] = int(float(value))
    for value in re.findall(r"^cloudach_logs_exported_total (\S+)$", said, re.M):
        found["exported"] = int(float(value))
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("mode", ["hangs", "refuses", "absent"])
def test_no_receiver_holds_a_request_or_the_end_up(mode: str, protocol: str) -> None:
    with exported("logs", mode=mode, protocol=protocol, settings={"queue": 20}) as running:
        with httpx.Client(headers={"authorization": f"Bearer {running.key}"}, timeout=30) as client:
            for _ in range(200):
                answer = client.post(f"{running.gateway.base_url}/chat/completions", json=chat(max_tokens=1))
                assert answer.status_code == 200
        found = counted(running)
        assert found["queue_full"] >= 100, found
        assert found["exported"] == 0
        assert running.gateway.stop(patience_s=60) == 0
        said = [line["event"] for line in lines(running)]
        assert [event for event in said if event.endswith("logs could not be exported before the end")]
        assert sum(event.startswith("the receiver of logs does not take them") for event in said) <= 1
        assert "opentelemetry" not in running.gateway.output


def test_every_record_is_exported_once_or_counted_as_dropped() -> None:
    with exported("logs", mode="refuses", settings={"queue": 50}) as running:
        for _ in range(60):
            running.post(chat(max_tokens=1))
        running.collector.mode = "takes"
        last = running.post(chat(max_tokens=1))

        def arrived() -> bool:
            ids = [record.attributes.get("request_id") for record in running.collector.records]
            return last.headers["x-request-id"] in ids

        until(arrived, "the last record")
        said = len(lines(running))
        until(lambda: counted(running).total() >= said, "all of them")
        found = counted(running)
        assert found["exported"] == len(running.collector.records)
        assert found.total() == len(lines(running)) - own(running)


def own(running: Exported) -> int:
    """Returns how many lines exporting itself has logged, which are not exported."""
    return sum("the receiver of logs" in line["event"] for line in lines(running))


def test_what_exporting_logs_is_not_exported() -> None:
    with exported("logs", settings={}) as running:
        running.gateway.process.send_signal(signal.SIGUSR1)
        until(lambda: "the log level has changed" in running.gateway.output)
        running.post()
        assert running.gateway.stop() == 0
        assert not [record for record in running.collector.records if "urllib3" in str(record)]


def test_nothing_of_a_request_gets_into_a_record() -> None:
    with exported("logs") as running:
        running.gateway.process.send_signal(signal.SIGUSR1)  # at any level
        until(lambda: "the log level has changed" in running.gateway.output)
        body = chat(SECRETS[0], max_tokens=4, user=SECRETS[1], stop=[SECRETS[0]], metadata={"a": SECRETS[1]})
        answer = running.post(body, {"baggage": SECRETS[2], "user-agent": SECRETS[1]})
        refused = running.post(chat(SECRETS[0], model=SECRETS[0]))
        running.sim.arm("http:500", times=None)
        broken = running.post(chat(SECRETS[0], max_tokens=4, user=SECRETS[1]))
        bad_key = httpx.post(
            f"{running.gateway.base_url}/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {running.key[:-1]}"},
        )
        assert (answer.status_code, refused.status_code, bad_key.status_code) == (200, 404, 401)
        assert broken.status_code >= 500
        assert running.gateway.stop() == 0
        said = b"".join(running.collector.of_logs)
        assert {one.headers["x-request-id"] for one in (answer, refused, broken, bad_key)} == requests(running)
        for secret in (*SECRETS, running.key[:-1], answer.json()["choices"][0]["message"]["content"]):
            assert secret.encode() not in said

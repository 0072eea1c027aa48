"""`cloudach-stack`, which `make run` starts: what it prints, writes and ends."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from cloudach_stack import state

from tests.support.collector import Collector
from tests.support.processes import BIN, Server
from tests.support.valkey import valkey
from tests.support.waiting import until

READY = re.compile(r"CLOUDACH_BASE_URL=(http://\S+)\nCLOUDACH_API_KEY=\S+\n")
STACK = BIN / "cloudach-stack"


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Server]:
    command = [STACK, "up", "--engine", "sim", "--port", "0", "--state-dir", folder, *options]
    with Server(command, ready=READY) as running:
        yield running


def written(folder: Path) -> dict[str, str]:
    """As a shell reads it."""
    shown = subprocess.run(
        ["bash", "-c", f'set -a; . "{folder}/env"; env'], check=True, capture_output=True, text=True, env={}
    ).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("CLOUDACH_"))


def answers(folder: Path) -> bool:
    told = written(folder)
    with openai.OpenAI(base_url=told["CLOUDACH_BASE_URL"], api_key=told["CLOUDACH_API_KEY"], max_retries=0) as client:
        answer = client.chat.completions.create(
            model="llama3-8b", messages=[{"role": "user", "content": "Hi"}], max_tokens=3
        )
    return answer.usage is not None and answer.usage.completion_tokens == 3


def descendants(pid: int) -> list[int]:
    children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as stack:
        told = written(tmp_path)
        assert told["CLOUDACH_BASE_URL"] == stack.url
        assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
        assert answers(tmp_path)
        started = descendants(stack.process.pid)
        assert len(started) == 3, "simulator, gateway, Valkey"
        stack.process.send_signal(number)
        assert stack.process.wait(30) == 0
        until(lambda: not any(alive(pid) for pid in started))


def test_a_killed_stack_leaves_nothing_behind(tmp_path: Path) -> None:
    with up(tmp_path) as stack:
        started = descendants(stack.process.pid)
        os.kill(stack.process.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in started))


def test_the_key_and_the_data_outlive_a_restart(tmp_path: Path) -> None:
    with up(tmp_path):
        first = written(tmp_path)["CLOUDACH_API_KEY"]
    with up(tmp_path):
        assert written(tmp_path)["CLOUDACH_API_KEY"] == first
        assert answers(tmp_path)


def test_two_stacks_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with up(one) as first, up(two) as second:
        assert answers(one)
        assert answers(two)
        down = subprocess.run(
            [STACK, "down", "--state-dir", one], capture_output=True, text=True, check=True, timeout=30
        )
        assert "stopped" in down.stdout
        assert first.process.wait(30) == 0
        assert second.alive
        assert answers(two)
        again = subprocess.run(
            [STACK, "down", "--state-dir", one], capture_output=True, text=True, check=True, timeout=30
        )
        assert "nothing runs" in again.stdout


def test_one_that_has_not_yet_said_who_it_is_is_stopped_too(tmp_path: Path) -> None:
    stack = subprocess.Popen(["sleep", "60"])
    with (tmp_path / "stack.pid").open("w") as held, ThreadPoolExecutor() as threads:
        fcntl.flock(held, fcntl.LOCK_EX)
        down = threads.submit(state.stop, tmp_path)
        time.sleep(0.3)
        assert not down.done()
        held.write(str(stack.pid))
        held.flush()
        assert stack.wait(30) == -signal.SIGTERM
        fcntl.flock(held, fcntl.LOCK_UN)
        assert down.result() is True


def test_a_second_start_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with up(tmp_path):
        second = subprocess.run(
            [STACK, "up", "--engine", "sim", "--port", "0", "--state-dir", tmp_path],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 2
        assert "already runs here" in second.stdout
        assert answers(tmp_path)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with up(tmp_path / "one") as first:
        port = str(httpx.URL(first.url).port)
        command = [STACK, "up", "--engine", "sim", "--port", port, "--state-dir", tmp_path / "two"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert f"127.0.0.1:{port}" in second.stdout


def test_what_it_waits_for_is_said(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    with valkey() as redis:
        config.write_text(f"models: [{{id: one}}]\ngateway: {{redis: {{url: '{redis.url}'}}}}\n")
        redis.kill()
        waits = re.compile("the gateway waits: (redis not reached yet)\n")
        command = [STACK, "up", "--engine", "sim", "--port", "0", "--state-dir", tmp_path, "--config", config]
        with Server(command, ready=waits) as stack:
            redis.start()
            until(lambda: READY.search(stack.output))
            assert stack.output.count("the gateway waits") == 1


def test_models_of_ones_own(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    models = "  - {id: one, aliases: [uno]}\n  - {id: two, adapters: [{name: sql, source: org/sql}]}\n"
    config.write_text(f"models:\n{models}gateway: {{limits: {{window_s: 30}}}}\n")
    with up(tmp_path / "state", "--config", str(config)) as stack:
        told = written(tmp_path / "state")
        with openai.OpenAI(base_url=stack.url, api_key=told["CLOUDACH_API_KEY"]) as client:
            assert [model.id for model in client.models.list()] == ["one", "uno", "two", "two:sql"]
            texts = [
                client.completions.create(model=m, prompt="Hi", max_tokens=9).choices[0].text
                for m in ("two", "two:sql")
            ]
        assert texts[0] != texts[1]
    config.write_text("models:\n  - {id: one, alias: uno}\n")
    refused = subprocess.run(
        [STACK, "up", "--engine", "sim", "--config", config, "--state-dir", tmp_path / "state"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert "line 2: models.0.alias: " in refused.stderr


def test_settings_of_the_gateway_are_refused_before_engines_start(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    command = [STACK, "up", "--config", config, "--state-dir", tmp_path / "state", "--engine-python", tmp_path / "none"]

    def asked(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)

    config.write_text("models: [{id: one}]\ngateway: {timeouts: {drain: 3}}\n")
    for more in ([], ["--check"]):
        refused = asked(*more)
        assert refused.returncode == 2
        assert "timeouts.drain: Extra inputs" in refused.stderr
    config.write_text("models: [{id: one}]\ngateway: {timeouts: {drain_s: 3}}\n")
    good = asked("--check")
    assert (good.returncode, good.stdout) == (0, "the settings are good\n"), good
    assert "run `make engine` first" in asked().stdout


def trace_of_an_answer(folder: Path, collector: Collector) -> list[str]:
    told = written(folder)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = httpx.post(
        f"{told['CLOUDACH_BASE_URL']}/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
        headers={
            "authorization": f"Bearer {told['CLOUDACH_API_KEY']}",
            "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
        },
    )
    assert answer.status_code == 200
    return [span.service for span in collector.trace(trace, spans=5)]


@pytest.mark.parametrize("by", ["variable", "file"])
def test_one_setting_gives_traces_of_gateway_and_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with Collector() as collector:
        config = "models: [{id: m}]\n"
        if by == "file":
            monkeypatch.setenv("CLOUDACH_TEST_RECEIVER", collector.url)
            config += "gateway: {telemetry: {traces: {endpoint: '${CLOUDACH_TEST_RECEIVER}'}}}\n"
        else:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        (tmp_path / "models.yaml").write_text(config)
        with up(tmp_path / "run", "--config", str(tmp_path / "models.yaml")):
            services = trace_of_an_answer(tmp_path / "run", collector)
    assert sorted(services) == ["cloudach-engine", *["cloudach-gateway"] * 4]

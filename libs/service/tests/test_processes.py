"""On real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cloudach_service.processes import end

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
STARTER = """
import subprocess, sys, time
from cloudach_service.processes import die_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=die_with_parent())
print(child.pid, flush=True)
time.sleep(600)
"""


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdout.close()
    return process


def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    child = int(starter.stdout.readline())
    assert _runs(child)
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + 20
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_parent_that_has_ended_already_is_noticed() -> None:
    """In a child, because it stays bound."""
    code = "import os, sys; from cloudach_service.processes import bind_to; print(bind_to(int(sys.argv[1])))"
    for parent, bound in ((os.getpid(), "True\n"), (os.getpid() + 1, "False\n")):
        done = subprocess.run([sys.executable, "-c", code, str(parent)], capture_output=True, text=True, check=True)
        assert done.stdout == bound


def test_a_process_ends_when_it_is_told_to() -> None:
    process = _started(SLEEPER)
    end(process, patience_s=20)
    assert process.returncode == -15
    end(process, patience_s=20)  # once more is nothing


def test_one_that_does_not_listen_is_killed_when_patience_is_over() -> None:
    process = _started(STUBBORN)
    began = time.monotonic()
    end(process, patience_s=0.2)
    assert process.returncode == -9
    assert 0.2 <= time.monotonic() - began < 10

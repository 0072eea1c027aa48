"""On real processes; in a supervisor of their own, since adopting orphans changes the process that does it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cloudach_inference.local.processes import descendants, shared_memory

# A child that ignores SIGTERM, and below it a grandchild in a session of its own whose parent is killed.
SUPERVISOR = """
import json, os, signal, subprocess, sys, time
from cloudach_inference.local.processes import adopt_orphans, descendants, end_descendants
adopt_orphans()
code = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import multiprocessing
from multiprocessing import shared_memory, resource_tracker
resource_tracker.register = lambda *_: None
kept = shared_memory.SharedMemory(create=True, size=4096)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).pid, flush=True)
lock = multiprocessing.get_context("spawn").Lock()
print(kept.name, "sem." + lock._semlock.name.removeprefix("/"), flush=True)
time.sleep(600)
'''
stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
orphan = int(stubborn.stdout.readline())
shared = stubborn.stdout.readline().split()
there = [name in os.listdir("/dev/shm") for name in shared]
lost = subprocess.Popen([sys.executable, "-c", "import os, time; os.fork() and os._exit(0); time.sleep(600)"])
lost.wait()
before = descendants(os.getpid())
began = time.monotonic()
left = end_descendants(grace_s=0.5)
print(json.dumps({"before": before, "stubborn": stubborn.pid, "orphan": orphan, "left": left,
                  "shared": shared, "there": there, "seconds": time.monotonic() - began}))
"""


def test_all_descendants_end_and_leave_no_memory() -> None:
    done = subprocess.run([sys.executable, "-c", SUPERVISOR], capture_output=True, text=True, check=True, timeout=50)
    seen = json.loads(done.stdout)
    assert {seen["stubborn"], seen["orphan"]} < set(seen["before"])
    assert len(seen["before"]) == 3  # the forked one was adopted
    assert seen["left"] == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen["before"])
    assert seen["there"] == [True, True]
    assert not set(seen["shared"]) & set(os.listdir("/dev/shm"))  # noqa: S108
    assert seen["seconds"] < 10  # then it would have given up


def test_descendants_are_found_through_all_levels() -> None:
    nested = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])"
    outer = subprocess.Popen([sys.executable, "-c", nested])
    try:
        deadline = time.monotonic() + 30
        while not descendants(outer.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        (inner,) = descendants(outer.pid)
        assert shared_memory(inner) == set()
        subprocess.run(["kill", str(inner)], check=True)
    finally:
        outer.kill()
        outer.wait()

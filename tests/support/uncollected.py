"""A gateway whose garbage collector is off, and which tells what a collection finds.

What finished requests leave behind without reference cycles is gone at once; the rest shows up here.
"""

from __future__ import annotations

import gc
import json
import socketserver
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from .processes import ROOT
from .stack import Gateway


class UncollectedGateway(Gateway):
    program = (sys.executable, "-m", "tests.support.uncollected")

    def collect(self) -> dict[str, int]:
        """What only a collection finds, by type, the most frequent first; it is thrown away."""
        import socket

        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(_place(self.config_file)))
            with asked.makefile() as answer:
                found: dict[str, int] = json.loads(answer.readline())
        return found


def _place(config_file: Path) -> Path:
    return config_file.parent / "collector"


class _Collector(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        types = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
        self.wfile.write(json.dumps(dict(types.most_common())).encode() + b"\n")


def main() -> Any:
    from cloudach_gateway import __main__ as gateway

    place = _place(Path(sys.argv[sys.argv.index("--config") + 1]))
    server = socketserver.UnixStreamServer(str(place), _Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gc.disable()
    return gateway.main()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())

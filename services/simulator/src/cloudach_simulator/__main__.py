"""`cloudach-sim` runs the simulator as one cheap process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

import uvloop
from cloudach_service.settings import ConfigError, header_text
from cloudach_service.traces.settings import Traces as TraceSettings
from pydantic import ValidationError

from . import admin, faults, traces
from .app import Simulator
from .config import SimConfig
from .server import serve
from .traces import Traces


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cloudach-sim",
        description="An engine for tests, demos and benchmarks that speaks vLLM's dialect of the OpenAI API.",
        epilog=f"Faults (--fault, header x-sim-fault, body field sim_fault, POST /sim/faults):\n{faults.__doc__}\n"
        f"{admin.__doc__}\nHeader x-sim-rate: tokens a second for one request.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = SimConfig()
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8000, help="port to listen on; 0 picks a free one (default: %(default)s)")
    add("--model", action="append", metavar="NAME", help="a served name; the first stands in answers (default: sim)")
    add("--adapter", action="append", default=[], metavar="NAME", help="a LoRA adapter: a model with texts of its own")
    add("--embedding-model", action="append", default=[], metavar="NAME", help="a name that /v1/embeddings serves")
    add("--rate", type=float, default=default.rate, help="tokens a second of each stream; 0: flat out (%(default)s)")
    add("--flat", action="store_true", help="the same as --rate 0")
    add("--jitter", type=float, default=0.0, help="each tick varies by this fraction (default: %(default)s)")
    add("--spread", action="store_true", help="streams tick apart instead of all at once")
    add("--ttft-ms", type=float, default=0.0, help="milliseconds to the first token (default: %(default)s)")
    add("--tokens-per-chunk", type=int, default=1, help="tokens of a chunk after the first (default: %(default)s)")
    add("--burst", type=int, default=default.burst, help="flat out: chunks a write (default: %(default)s)")
    add("--max-model-len", type=int, default=default.max_model_len, help="tokens of context (default: %(default)s)")
    add(
        "--tool-parser",
        choices=("hermes", "none"),
        default=default.tool_parser,
        help="as vLLM with and without --enable-auto-tool-choice; none refuses tools (default: %(default)s)",
    )
    add("--prompt-tokens-details", action="store_true", help="as vLLM's option: usage tells of cached tokens, always 0")
    add("--api-key", action="append", help="required as a bearer token (default: $SIM_API_KEY or $VLLM_API_KEY)")
    add("--root-path", default="", help="a prefix under which all routes lie as well")
    add("--fault", default="", help="strikes every request; see below")
    add("--fault-seed", type=int, default=0, help="of faults with a probability (default: %(default)s)")
    add(
        "--drain-s", type=float, default=0.0, help="seconds from SIGTERM to the end of what runs (default: %(default)s)"
    )
    add(
        "--drain-end",
        choices=("shutdown", "close"),
        default="shutdown",
        help="the fault that ends it: as vLLM does, or as a replica behind a proxy goes (default: %(default)s)",
    )
    add(
        "--traces-endpoint",
        metavar="URL",
        help="exports a span of each request by OTLP, as vLLM does; or $OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    add("--traces-protocol", metavar="NAME", help="http/protobuf or grpc; or $OTEL_EXPORTER_OTLP_PROTOCOL")
    add("--parent-pid", type=int, metavar="PID", help="exit when that process is gone")
    return parser


def configuration(arguments: list[str] | None = None) -> tuple[SimConfig, argparse.Namespace]:
    """Returns the settings from the command line and the environment."""
    parser = _parser()
    options = parser.parse_args(arguments)
    keys = options.api_key or [k for k in (os.environ.get("SIM_API_KEY") or os.environ.get("VLLM_API_KEY"),) if k]
    for name in ("rate", "jitter", "ttft_ms", "drain_s"):
        if getattr(options, name) < 0:
            parser.error(f"--{name.replace('_', '-')} must not be negative")
    for name in ("tokens_per_chunk", "burst", "max_model_len"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        keys = [header_text(key) for key in keys]
    except ValueError as error:
        parser.error(f"--api-key: {error}")
    try:
        options.traces = TraceSettings(endpoint=options.traces_endpoint, protocol=options.traces_protocol)
    except ValidationError as error:
        problem = error.errors()[0]
        parser.error(f"--traces-{problem['loc'][0]}: {problem['msg']}")
    try:
        faults.parse(options.fault)
    except faults.BadFault as error:
        parser.error(f"--fault: {error}")
    config = SimConfig(
        models=tuple(options.model or ("sim",)),
        adapters=tuple(options.adapter),
        embedding_models=tuple(options.embedding_model),
        max_model_len=options.max_model_len,
        rate=0.0 if options.flat else options.rate,
        jitter=options.jitter,
        spread=options.spread,
        ttft_ms=options.ttft_ms,
        tokens_per_chunk=options.tokens_per_chunk,
        burst=options.burst,
        tool_parser=options.tool_parser,
        prompt_tokens_details=options.prompt_tokens_details,
        api_keys=tuple(keys),
        root_path=options.root_path.rstrip("/"),
        fault=options.fault,
        fault_seed=options.fault_seed,
    )
    return config, options


def _end_with(pid: int, end: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        end()
        return
    loop.add_reader(descriptor, end)


async def _main(config: SimConfig, options: argparse.Namespace, exporting: Traces | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    patience_s: float = options.drain_s

    def orphaned() -> None:
        nonlocal patience_s
        patience_s = 0.0
        stop.set()

    if options.parent_pid is not None:
        _end_with(options.parent_pid, orphaned, loop)
    simulator = Simulator(config, loop, exporting)
    server, port = await serve(simulator, options.host, options.port)
    # The objects of the start live for good, so the collector need not look at them again.
    gc.collect()
    gc.freeze()
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"listening on http://{host}:{port}", flush=True)
    await stop.wait()
    await simulator.drain(patience_s, faults.parse(options.drain_end))
    server.close()
    await asyncio.sleep(0.01)  # for the last bytes
    if exporting is not None:
        await asyncio.to_thread(exporting.close)


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM, Ctrl-C, or the parent's end, and then drains."""
    config, options = configuration(arguments)
    try:
        uvloop.run(_main(config, options, traces.start(os.environ, options.traces)))
    except (OSError, ConfigError) as error:
        print(f"cloudach-sim: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

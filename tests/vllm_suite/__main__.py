"""`python -m tests.vllm_suite`: see --help."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cloudach_service.processes import die_with_parent

from tests.support.inference import VLLM_PYTHON, base_weights
from tests.support.processes import ROOT, ServerFailed

from .engines import Asked, Engines, version
from .source import SourceError, fetch
from .verdict import Verdict, judge

HERE = Path(__file__).parent
CACHE = ROOT / ".cache" / "vllm-suite"
RESULTS = CACHE / "results.jsonl"
# A small model may go on for ever where a test names no limit of tokens; the same then fails either way.
_TEST_S = 60
_MORE_TRIES = 2  # for a test that fails only through the gateway: some sample, and a small model errs by chance
KNOWN = HERE / "known.toml"

# All files of the suite that ask a server and can be served by a small text model.
FILES = (
    "completion/test_completion.py",
    "completion/test_prompt_validation.py",
    "chat_completion/test_batched_chat_completions.py",
    "chat_completion/test_chat.py",
    "chat_completion/test_chat_completion.py",
    "chat_completion/test_chat_echo.py",
    "chat_completion/test_chat_logit_bias_validation.py",
    "chat_completion/test_completion_with_function_calling.py",
    "chat_completion/test_enable_force_include_usage.py",
    "chat_completion/test_include_reasoning.py",
    "chat_completion/test_logprob_token_ids.py",
    "chat_completion/test_root_path.py",
    "chat_completion/test_thinking_token_budget.py",
    "models/test_models.py",
    "test_async_tokenization.py",
    "test_chunked_prompt.py",
    "test_return_token_ids.py",
    "test_return_tokens_as_ids.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.vllm_suite",
        description="Runs vLLM's own tests of its OpenAI server twice, against vLLM alone and through the gateway, and"
        " fails when a test fails only through the gateway without a reason in tests/vllm_suite/known.toml.",
    )
    parser.add_argument(
        "files", nargs="*", default=FILES, help="files of tests/entrypoints/openai (default: all that can)"
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests whose name this matches, as for pytest")
    parser.add_argument("--list", action="store_true", help="only list the files")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(FILES))
        return 0
    try:
        root = fetch(version(), CACHE, HERE / "within" / "shim_utils.py")
    except SourceError as error:
        print(f"vLLM's tests could not be had: {error}", file=sys.stderr)
        return 2
    known = tomllib.loads(KNOWN.read_text()).get("known", {})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    RESULTS.write_text("")
    cut = False
    try:
        run(root, asked.files, asked.k)
        for _ in range(_MORE_TRIES):
            if nodes := judge(results(), known).nodes:
                print(f"\nOnce more, because some sample: the {len(nodes)} that failed only through the gateway.")
                run(root, nodes, None)
    except KeyboardInterrupt:
        cut = True
        print("\nThe run was cut short.")
    verdict = judge(results(), known)
    tell(verdict)
    return 0 if verdict.good and not cut else 1


def results() -> list[dict[str, str]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def run(root: Path, files: Sequence[str], chosen: str | None) -> None:
    """Runs files or single tests in the engine's environment, and gives them the servers that they ask for."""
    site = CACHE / "site"
    uv = [ROOT / ".tools/bin/uv", "pip", "install", "--quiet", "--python", VLLM_PYTHON, "--target", site, "--no-deps"]
    needed = ["-r", HERE / "requirements.txt", "iniconfig", "pluggy", "pygments"]
    if not (site / "pytest").is_dir():
        subprocess.run([*uv, *needed], check=True, timeout=300)
    engines = Engines()

    class Control(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                status, said = 200, json.dumps(engines.serve(Asked.of(**wanted)))
            except ServerFailed as error:
                status, said = 500, str(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Control) as control:
        env = os.environ | {
            "PYTHONPATH": f"{HERE / 'within'}:{site}",
            "HF_HUB_OFFLINE": "1",
            "VLLM_SUITE_CONTROL": f"http://127.0.0.1:{control.server_port}",
            "VLLM_SUITE_WEIGHTS": str(base_weights()),
            "VLLM_SUITE_RESULTS": str(RESULTS),
        }
        command = [VLLM_PYTHON, "-m", "pytest", "-p", "vllm_suite_plugin", "-p", "no:cacheprovider", "--rootdir", root]
        command += ["-c", HERE / "within" / "pytest.ini", "--confcutdir", root]
        command += [f"--timeout={_TEST_S}", "--tb=no", "-v", "--no-header", *(["-k", chosen] if chosen else [])]
        command += [f"tests/entrypoints/openai/{file}" for file in files]
        tests = subprocess.Popen(command, cwd=root, env=env, preexec_fn=die_with_parent())
        control.timeout = 0.5
        try:
            while tests.poll() is None:
                control.handle_request()  # in this thread: what it starts dies with it
        finally:
            tests.kill()
            tests.wait()
            engines.stop()


def tell(verdict: Verdict) -> None:
    for title, tests in (
        ("fail against vLLM alone as well (a small model, or this machine)", verdict.failed_both),
        ("fail against vLLM alone and pass through the gateway", verdict.only_direct),
        ("were skipped", verdict.skipped),
    ):
        if tests:
            print(f"\n{len(tests)} {title}:", *(f"  {test}" for test in tests), sep="\n")
    if verdict.explained:
        print(f"\n{len(verdict.explained)} fail only through the gateway, for a known reason:")
        print(*(f"  {test}: {reason}" for test, reason in verdict.explained.items()), sep="\n")
    if verdict.needless:
        print("\nnamed in known.toml, and did not fail:", *(f"  {pattern}" for pattern in verdict.needless), sep="\n")
    if verdict.unexpected:
        print(f"\n{len(verdict.unexpected)} FAIL ONLY THROUGH THE GATEWAY:")
        print(*(f"  {test}\n      {said[:600]}" for test, said in verdict.unexpected.items()), sep="\n")
    print(f"\n{len(verdict.passed)} passed against vLLM alone and through the gateway.")


if __name__ == "__main__":
    sys.exit(main())

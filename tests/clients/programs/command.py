"""Command-line programs: run as a user would, judged by their output."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from features import API_KEY, BASE_URL, MODEL, feature, says

BIN = Path(sys.executable).parent
HOME = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
ENV = {**os.environ, "HOME": str(HOME), "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1", "HF_HOME": f"{HOME}/hf"}
TOKENIZER = "cloudach/tokenizer"


def run(*command: str, env: dict[str, str] | None = None, cwd: Path = HOME) -> str:
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        env=ENV | (env or {}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout[-400:]}"
    return done.stdout


def tokenizer() -> Path:
    """Load generators count tokens by themselves. A small tokenizer is made here, because there is no hub.

    It lies in Hugging Face's cache as if it had been downloaded as `TOKENIZER`; the folder is returned.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["a few words to begin with"], trainers.BpeTrainer(initial_alphabet=alphabet))
    repository = Path(ENV["HF_HOME"]) / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    folder = repository / "snapshots" / "0"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)
    return folder


def llm() -> None:
    user = HOME / "llm"
    user.mkdir()
    entry = {"model_id": "cloudach", "model_name": MODEL, "api_base": BASE_URL, "api_key_name": "cloudach"}
    (user / "extra-openai-models.yaml").write_text(json.dumps([entry]))
    (user / "keys.json").write_text(json.dumps({"cloudach": API_KEY}))
    own = {"LLM_USER_PATH": str(user)}

    @feature("chat")
    def chat() -> None:
        says(run("llm", "-m", "cloudach", "--no-stream", "Hello", env=own))

    @feature("stream")
    def stream() -> None:
        says(run("llm", "-m", "cloudach", "Hello", env=own))


def aider() -> None:
    own = {"OPENAI_API_BASE": BASE_URL, "OPENAI_API_KEY": API_KEY, "AIDER_ANALYTICS": "false"}
    quiet = ["--no-git", "--yes-always", "--no-check-update", "--no-show-model-warnings", "--no-show-release-notes"]

    def ask(*options: str) -> str:
        answer = run("aider", "--model", f"openai/{MODEL}", *quiet, *options, "--message", "Hello", env=own)
        assert re.search(r"Tokens: .* sent, .* received", answer), answer[-400:]
        return answer

    @feature("chat")
    def chat() -> None:
        ask("--no-stream")

    @feature("stream")
    def stream() -> None:
        ask("--stream")


def guidellm() -> None:
    @feature("stream")
    def stream() -> None:
        out = HOME / "guidellm.json"
        run(
            *("guidellm", "run", "--disable-console", "--profile", "kind=synchronous"),
            *("--backend", f"kind=openai_http,target={BASE_URL.removesuffix('/v1')},model={MODEL},api_key={API_KEY}"),
            *("--tokenizer", f"kind=hf_auto,model={tokenizer()}", "--constraint", "kind=max_requests,count=3"),
            *("--data", "kind=synthetic_text,prompt_tokens=16,output_tokens=8", "--output", f"kind=json,path={out}"),
        )
        totals = json.loads(out.read_text())["benchmarks"][0]["metrics"]["request_totals"]
        assert (totals["successful"], totals["errored"]) == (3, 0), totals


def aiperf() -> None:
    @feature("stream")
    def stream() -> None:
        out = HOME / "aiperf"
        tokenizer()
        said = run(
            *("aiperf", "profile", "--model", MODEL, "--url", BASE_URL.removesuffix("/v1"), "--endpoint-type", "chat"),
            *("--streaming", "--request-count", "4", "--concurrency", "2", "--tokenizer", TOKENIZER),
            *("--osl", "8", "--isl", "16", "--api-key", API_KEY, "--artifact-dir", str(out), "--ui", "simple"),
        )
        found = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())
        assert found["request_count"]["avg"] == 4, said[-400:]
        assert not found.get("error_summary"), found["error_summary"]


if __name__ == "__main__":
    {"llm": llm, "aider": aider, "guidellm": guidellm, "aiperf": aiperf}[sys.argv[1]]()

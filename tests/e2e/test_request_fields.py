"""The table of request fields knows every field of the vLLM that is installed."""

from __future__ import annotations

import json
import subprocess

from openai_wire.fields import FIELDS, PARTS

from tests.support.inference import VLLM_PYTHON

_READ = """
import json
from vllm.entrypoints.chat_utils import _KNOWN_CONTENT_PART_FIELDS
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed import protocol
kinds = [kind for name, kind in vars(protocol).items() if name.startswith("Embedding") and name.endswith("Request")]
models = [ChatCompletionRequest, CompletionRequest, *(kind for kind in kinds if hasattr(kind, "model_fields"))]
print(json.dumps({
    "fields": {model.__name__: sorted(model.model_fields) for model in models},
    "parts": sorted(_KNOWN_CONTENT_PART_FIELDS),
}))
"""


def test_no_field_of_vllm_is_without_a_row() -> None:
    done = subprocess.run([VLLM_PYTHON, "-c", _READ], stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["fields"]) >= 4
    assert "cache_salt" in told["fields"]["ChatCompletionRequest"]
    assert "truncate_prompt_tokens" in told["fields"]["EmbeddingCompletionRequest"]
    missing = {model: sorted(set(names) - FIELDS.keys()) for model, names in told["fields"].items()}
    assert {model: names for model, names in missing.items() if names} == {}
    assert set(told["parts"]) - PARTS.keys() == set()

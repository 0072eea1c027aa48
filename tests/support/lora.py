"""A LoRA adapter for a Llama-like model, made of random numbers: what it says is another text, and always the same."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path


def make_adapter(folder: Path, base: Path, *, rank: int = 8, seed: int = 1) -> Path:
    """As PEFT writes it, for the queries and values of the model whose config.json lies in `base`."""
    config = json.loads((base / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    outputs = {"q_proj": heads * head, "v_proj": config["num_key_value_heads"] * head}
    numbers = random.Random(seed)
    header: dict[str, object] = {}
    data = bytearray()
    for layer in range(config["num_hidden_layers"]):
        for module, size in outputs.items():
            for part, shape in (("lora_A", (rank, hidden)), ("lora_B", (size, rank))):
                values = array("f", (numbers.gauss(0, 0.1) for _ in range(shape[0] * shape[1])))
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}.{part}.weight"
                begin = len(data)
                data += values.tobytes()
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + bytes(data)
    (folder / "adapter_model.safetensors").write_bytes(whole)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(outputs),
        "bias": "none",
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder

"""The recipes of docs/how-to-change.md name files that are there, and their commands name tests that are there."""

import re

from . import code

PAGE = (code.ROOT / "docs/how-to-change.md").read_text()
G = "services/gateway/src/cloudach_gateway/"


def test_paths() -> None:
    named = [name for name in re.findall(r"`([A-Za-z_.]+/[\w./-]*)`", PAGE) if not name.startswith("_")]
    assert len(named) > 30
    places = {name: name.replace("G/", G, 1) if name.startswith("G/") else name for name in named}
    wire = "libs/openai-wire/src/"
    assert [
        name
        for name, place in places.items()
        if not ((code.ROOT / place).exists() or (code.ROOT / wire / place).exists() or place == "_s")
    ] == []


def test_commands() -> None:
    named = re.findall(r"^.*\.venv/bin/pytest .*? ((?:services|tests)/[\w/.]+)", PAGE, flags=re.MULTILINE)
    assert len(named) > 4
    assert [name for name in named if not (code.ROOT / name).exists()] == []


def test_it_names_what_is_in_those_files() -> None:
    """The classes and functions that the recipes speak of."""
    for name, place in {
        "class Asked": f"{G}api/endpoint.py",
        "class ToEngine": f"{G}api/endpoint.py",
        "class Check": f"{G}admission/check.py",
        "class Rules": f"{G}admission/rules.py",
        "class KeyLimits": f"{G}admission/key_records.py",
        "Route": f"{G}app.py",
        "class Ask": f"{G}admission/grants.py",
        "class Args": "services/inference/src/cloudach_inference/serve.py",
        "class ChatRequest": "libs/openai-wire/src/openai_wire/requests.py",
        "def observe": f"{G}metrics.py",
        "class Rule": "libs/model-api/src/cloudach_model_api/part.py",
    }.items():
        assert name in (code.ROOT / place).read_text(), (name, place)
        assert name.rpartition(" ")[2] in PAGE, name

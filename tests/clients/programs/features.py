"""Each program here tries a client's features one by one, and prints a line of JSON for each."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any

BASE_URL = os.environ["CLOUDACH_BASE_URL"]
API_KEY = os.environ["CLOUDACH_API_KEY"]
MODEL = os.environ["CLOUDACH_MODEL"]
EMBEDDING_MODEL = os.environ.get("CLOUDACH_EMBEDDING_MODEL", "")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CITY = {**WEATHER["function"]["parameters"], "additionalProperties": False}


def feature(name: str) -> Callable[[Callable[[], Any]], None]:
    """Runs what it decorates at once. A failed assertion or an exception means that the feature does not work."""

    def run(check: Callable[[], Any]) -> None:
        said = ""
        try:
            if inspect.iscoroutinefunction(check):
                asyncio.run(check())
            else:
                check()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps({"feature": name, "works": not said, "said": said}), flush=True)

    return run


def says(text: str | None) -> None:
    assert text, "no text"
    assert text.strip(), "an empty text"


if __name__ == "__main__":
    sys.exit("import me")

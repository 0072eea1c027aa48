"""A probe asks a model for one token through the ingress, as a client does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request


def answers(base_url: str, model_id: str, api_key: str | None, *, timeout_s: float) -> str | None:
    """Returns None if the model answers, and otherwise what happened instead."""
    body = json.dumps({"model": model_id, "prompt": "Hello", "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    request = urllib.request.Request(f"{base_url}/v1/completions", body, headers)
    # No proxy from the environment: this is loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            usage = json.load(response)["usage"]
            return None if usage["completion_tokens"] == 1 else f"it answered with {usage}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read(300).decode('utf-8', 'replace')}"
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"

"""The chart's Jobs send their few requests to the API server with this, and the standard library alone."""

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def call(method, path, body=None, content_type="application/merge-patch+json"):
    """Returns the answer as parsed JSON. Raises urllib.error.HTTPError, with the API server's words in its message."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {(_ACCOUNT / 'token').read_text()}",
            "accept": "application/json",
            "content-type": content_type,
        },
    )
    trust = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read().decode(errors='replace')}"
        raise

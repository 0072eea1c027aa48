"""Makes the first API key and puts it into a Secret.

first_key.py NAMESPACE SECRET [argument of `cloudach keys create`]…
"""

import base64
import json
import subprocess
import sys
import time

import kube_api

REDIS_PATIENCE_S = 300


def main(namespace, secret, *arguments):
    path = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
    if kube_api.call("GET", path).get("data"):
        print(f"the Secret {secret} holds a key already")
        return
    made = create(arguments)
    data = {name: base64.b64encode(made[name].encode()).decode() for name in ("key", "id", "tenant")}
    kube_api.call("PATCH", path, {"data": data})
    print(f"made the key {made['id']} of tenant {made['tenant']}: it is in the Secret {secret}")


def create(arguments):
    """Redis may still be starting, so it is asked again. A wrong argument (exit code 2) stays wrong."""
    deadline = time.monotonic() + REDIS_PATIENCE_S
    while True:
        command = ["cloudach", "keys", "create", "--json", *arguments]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
        if done.returncode == 2 or time.monotonic() > deadline:
            sys.exit(done.stderr or f"cloudach keys create ended with {done.returncode}")
        print(done.stderr.strip(), flush=True)
        time.sleep(2)


if __name__ == "__main__":
    main(*sys.argv[1:])

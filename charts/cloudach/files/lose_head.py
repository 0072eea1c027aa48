"""Deletes the head of a Model while it answers. Every stream has to run on, also those that begin meanwhile.

lose_head.py NAMESPACE MODEL

Environment: GATEWAY_URL, MODEL (its name at the gateway; if empty, its name in the cluster) and TIMEOUT_S.
"""

import os
import sys
import threading
import time

import helm_test
import kube_api

STREAMS = 4


def main(namespace, name):
    deadline = time.monotonic() + float(os.environ["TIMEOUT_S"])
    path = f"/api/v1/namespaces/{namespace}/pods"
    old = head(path, name)
    if old is None:
        sys.exit(f"{name} has no head pod that is ready in {namespace}")
    if old["metadata"].get("annotations", {}).get("ray.io/ft-enabled") != "true":
        sys.exit(f"the head of {name} keeps no state in a store: replace the Model, and test again")
    made = []
    try:
        load = Load(helm_test.client_with_key(made), os.environ.get("MODEL") or name)
        load.begin(deadline)
        pod = old["metadata"]["name"]
        kube_api.call("DELETE", f"{path}/{pod}", {"gracePeriodSeconds": 0}, "application/json")
        print(f"the head {pod} is deleted", flush=True)
        while (new := head(path, name)) is None or new["metadata"]["uid"] == old["metadata"]["uid"]:
            if time.monotonic() > deadline:
                sys.exit(f"{name} got no other head in time")
            time.sleep(1)
        load.end()
    finally:
        for key in made:
            helm_test.cloudach("delete", key["id"])
    if load.broken:
        sys.exit(f"{len(load.broken)} streams broke when the head was lost, the first: {load.broken[0]}")
    print(f"{load.finished} streams ran on without their head", flush=True)


def head(path, name):
    """The Model's head pod, if there is one that is ready and stays."""
    selector = f"?labelSelector=cloudach.dev/model={name},ray.io/node-type=head"
    for pod in kube_api.call("GET", path + selector)["items"]:
        ready = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}.get("Ready")
        if ready == "True" and "deletionTimestamp" not in pod["metadata"]:
            return pod
    return None


class Load:
    """Streams, one after another in each thread, which nobody asks for twice."""

    def __init__(self, client, model):
        self.client, self.model = client, model
        self.finished, self.broken = 0, []
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._begun = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(STREAMS)]

    def begin(self, deadline):
        helm_test.stream(self.client, self.model, deadline)  # waits for a Model that sleeps or starts
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._begun.acquire()

    def end(self):
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._ending.is_set():
            try:
                self._stream()
                with self._lock:
                    self.finished += 1
            except Exception as error:  # whatever it is, a client would see it
                self._begun.release()
                with self._lock:
                    self.broken.append(repr(error))
                return

    def _stream(self):
        reason = None
        for chunk in self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=200,
            stream=True,
        ):
            self._begun.release()
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
        if reason is None:
            raise ValueError("a stream ended without a finish reason")


if __name__ == "__main__":
    main(*sys.argv[1:])

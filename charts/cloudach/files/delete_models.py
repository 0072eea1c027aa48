"""Deletes the Models of a release and waits until they are gone: delete_models.py LABEL_SELECTOR NAMESPACE…"""

import sys
import time
import urllib.error
import urllib.parse

import kube_api

PATIENCE_S = 840  # below the Job's deadline


def main(selector, *namespaces):
    deadline = time.monotonic() + PATIENCE_S
    told = set()
    while True:
        left = [(namespace, model) for namespace in namespaces for model in models(namespace, selector)]
        if not left:
            return
        for namespace, model in left:
            name = model["metadata"]["name"]
            if "deletionTimestamp" not in model["metadata"]:
                delete(namespace, name)
            if (namespace, name) not in told:
                told.add((namespace, name))
                print(f"deleting {namespace}/{name}; its streams may end first", flush=True)
        if time.monotonic() > deadline:
            names = ", ".join(f"{namespace}/{model['metadata']['name']}" for namespace, model in left)
            sys.exit(f"still there after {PATIENCE_S} s: {names}. Does the controller run? See its log.")
        time.sleep(1)


def _path(namespace):
    return f"/apis/cloudach.dev/v1alpha1/namespaces/{namespace}/models"


def models(namespace, selector):
    return kube_api.call("GET", f"{_path(namespace)}?labelSelector={urllib.parse.quote(selector)}")["items"]


def delete(namespace, name):
    try:
        kube_api.call("DELETE", f"{_path(namespace)}/{name}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])

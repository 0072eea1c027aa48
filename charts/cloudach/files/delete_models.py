"""Deletes the Models of a release and waits until they are gone: delete_models.py LABEL_SELECTOR NAMESPACE…"""

import os
import sys
import time
import urllib.error
import urllib.parse

import kube_api

PATIENCE_S = float(os.environ.get("PATIENCE_S", "840"))  # below the Job's deadline
REFUSED_S = 20  # no answer changes for longer than this when the API server has just been given the rights


def main(selector, *namespaces):
    deadline = time.monotonic() + PATIENCE_S
    refused_until = time.monotonic() + REFUSED_S
    told = set()
    while True:
        left, refused = [], []
        for namespace in namespaces:
            try:
                left += [(namespace, model) for model in models(namespace, selector)]
            except urllib.error.HTTPError as error:
                if error.code != 403:
                    raise
                refused.append(namespace)
        for namespace, model in left:
            name = model["metadata"]["name"]
            if "deletionTimestamp" not in model["metadata"]:
                delete(namespace, name)
            if (namespace, name) not in told:
                told.add((namespace, name))
                print(f"deleting {namespace}/{name}; its streams may end first", flush=True)
        if not left and (not refused or time.monotonic() > refused_until):
            for namespace in refused:
                print(f"left out {namespace}: it was deleted, or somebody took the Role in it away", flush=True)
            return
        if time.monotonic() > deadline:
            names = ", ".join(f"{namespace}/{model['metadata']['name']}" for namespace, model in left)
            sys.exit(f"still there after {PATIENCE_S:g} s: {names}. Does the controller run? See its log.")
        time.sleep(1)


def _path(namespace):
    return f"/apis/cloudach.dev/v1alpha1/namespaces/{namespace}/models"


def models(namespace, selector):
    return kube_api.call("GET", f"{_path(namespace)}?labelSelector={urllib.parse.quote(selector)}")["items"]


def delete(namespace, name):
    try:
        kube_api.call("DELETE", f"{_path(namespace)}/{name}")
    except urllib.error.HTTPError as error:
        if error.code not in (403, 404):  # its Role may go with the namespace meanwhile
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])

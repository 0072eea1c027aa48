"""These types say where a model's weights come from."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from .part import Part, Rule, text

ObjectName = Annotated[
    str,
    text(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "must be the name of an object: lower-case letters, digits, - and ., with a letter or a digit at both ends",
        least=1,
        most=253,
    ),
]
SecretKey = Annotated[
    str,
    text(r"^[-._a-zA-Z0-9]+$", "must be an entry's name: letters, digits, -, _ and . alone", least=1, most=253),
]

_OUTSIDE = re.compile(r"(^|/)[.][.](/|$)")


class SecretReference(Part):
    name: ObjectName
    """The name of a Secret in the Model's namespace."""


class SecretKeyReference(SecretReference):
    key: SecretKey = "token"
    """The entry of the Secret."""


class HuggingFace(Part):
    """It names a repository of the Hugging Face Hub. Every replica's pod downloads it, so a PVC or an image starts
    faster.
    """

    repo: Annotated[
        str,
        text(
            r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
            "must be organisation and name, as meta-llama/Llama-3.1-8B-Instruct; not a URL",
            most=200,
        ),
    ]
    """Organisation and name, as `meta-llama/Llama-3.1-8B-Instruct`."""
    revision: (
        Annotated[
            str,
            text(
                r"^[A-Za-z0-9._/-]+$",
                "must be a branch, a tag or a commit: letters, digits, ., _, - and / alone",
                least=1,
                most=200,
            ),
        ]
        | None
    ) = None
    """Branch, tag or commit. The default is the repository's main branch. Only a commit never changes."""
    token_secret: SecretKeyReference | None = None
    """The access token of a private or gated repository."""


class Pvc(Part):
    """It names a folder in a PersistentVolumeClaim of the Model's namespace, mounted read-only. For replicas on several
    nodes the claim must be ReadOnlyMany or ReadWriteMany.
    """

    claim_name: ObjectName
    """The claim's name."""
    path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The folder that holds `config.json`, from the claim's root. The default is the root itself."""

    rules = (
        Rule(
            "path is taken from the claim's root: give it without a leading / and without ..",
            "!has(self.path) || (!self.path.startsWith('/') && !self.path.matches('(^|/)[.][.](/|$)'))",
            lambda it: it.path is None or not (it.path.startswith("/") or _OUTSIDE.search(it.path)),
            ".path",
        ),
    )


class ObjectStore(Part):
    """It names a prefix in an object store. Every replica's pod downloads it."""

    uri: Annotated[
        str,
        text(
            r"^(s3|gs|abfss|azure)://[^/]+/.*[^/]/?$",
            "must begin with s3://, gs://, abfss:// or azure:// and name a bucket and a folder in it, as"
            " s3://bucket/models/llama",
            most=1024,
        ),
    ]
    """The address of the folder, as `s3://bucket/models/llama-3.1-8b`. The scheme is `s3`, `gs`, `abfss` or `azure`."""
    credentials_secret: SecretReference | None = None
    """Its entries become environment variables of the download, as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Without it the service account of the pods must have the right."""
    endpoint: (
        Annotated[
            str,
            text(r"^https?://[^/]+/?$", "must be a URL without a path, as https://minio.example.com", most=1024),
        ]
        | None
    ) = None
    """The URL of a store that speaks S3 and is not Amazon's, as `https://minio.example.com`."""

    rules = (
        Rule(
            "endpoint is for s3:// alone: leave it out",
            "!has(self.endpoint) || self.uri.startsWith('s3://')",
            lambda it: it.endpoint is None or it.uri.startswith("s3://"),
            ".endpoint",
        ),
        Rule(
            "endpoint must be a URL with a host, and a port from 1 to 65535 if any",
            None,  # the API server's own test of URLs takes every port
            lambda it: it.endpoint is None or _is_address(it.endpoint),
            ".endpoint",
        ),
    )


class ImageFolder(Part):
    """It names a folder of the engine's image. Set `spec.image` to an image that holds the weights."""

    path: Annotated[str, text(r"^/", "must be absolute, as /models/llama-3.1-8b", least=2, most=1024)]
    """The absolute path, as `/models/llama-3.1-8b`."""


class Simulator(Part):
    """It needs no weights and no GPU. An engine that speaks vLLM's dialect answers with made-up text, to try the
    platform. `engine.args` are its settings.
    """


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _exactly_one(part: Part, names: tuple[str, ...]) -> bool:
    return sum(getattr(part, name) is not None for name in names) == 1


class Source(Part):
    """Set exactly one of these fields."""

    hugging_face: HuggingFace | None = None
    pvc: Pvc | None = None
    object_store: ObjectStore | None = None
    image: ImageFolder | None = None
    simulator: Simulator | None = None

    rules = (
        Rule(
            "give exactly one of huggingFace, pvc, objectStore, image and simulator",
            "[has(self.huggingFace), has(self.pvc), has(self.objectStore), has(self.image), has(self.simulator)]"
            ".filter(given, given).size() == 1",
            lambda it: _exactly_one(it, ("hugging_face", "pvc", "object_store", "image", "simulator")),
        ),
    )


class AdapterSource(Part):
    """Set exactly one of these fields. A folder holds `adapter_config.json` and its weights, as PEFT writes them."""

    hugging_face: HuggingFace | None = None
    pvc: Pvc | None = None
    object_store: ObjectStore | None = None
    image: ImageFolder | None = None
    simulator: Simulator | None = None

    rules = (
        Rule(
            "give exactly one of huggingFace, pvc, objectStore, image and simulator",
            "[has(self.huggingFace), has(self.pvc), has(self.objectStore), has(self.image), has(self.simulator)]"
            ".filter(given, given).size() == 1",
            lambda it: _exactly_one(it, ("hugging_face", "pvc", "object_store", "image", "simulator")),
        ),
    )

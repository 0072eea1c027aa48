"""The page that says which clients work: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .catalogue import Client

FEATURES = (
    "models",
    "chat",
    "stream",
    "stream, async",
    "usage in the stream",
    "tools",
    "structured output",
    "embeddings",
    "errors",
)

_HEAD = """\
# Clients that were tried

Other people's clients, installed as their users install them and sent to the gateway with a base URL and a key.
`make test-clients` makes this page: it installs each client, runs `tests/clients/programs` and writes what works.
The engine was {engine}.

- *chat*: an answer in one piece. *errors*: a bad key and an unknown model raise the client's own exception for them.
- ✓ works; ✗ does not, with the reason below; empty: the client has no such feature, or it was not tried.

"""


@dataclass(frozen=True)
class Tried:
    """features: what the client said about each that does not work, '' for one that works."""

    client: Client
    features: dict[str, str]
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.trouble and not any(self.features.values())


def render(tried: Sequence[Tried], engine: str) -> str:
    rows = [
        "| client | version | " + " | ".join(FEATURES) + " |",
        "|---" * (len(FEATURES) + 2) + "|",
    ]
    notes = []
    for one in tried:
        marks = ["" if feature not in one.features else "✗" if one.features[feature] else "✓" for feature in FEATURES]
        rows.append(f"| {one.client.name} | {one.client.version} | " + " | ".join(marks) + " |")
        said = [f"{feature}: {text}" for feature, text in one.features.items() if text]
        said += [text for text in (one.trouble, one.client.note) if text]
        notes += [f"- **{one.client.name}**: {_one_line(text)}" for text in said]
    return _HEAD.format(engine=engine) + "\n".join(rows) + "\n" + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]

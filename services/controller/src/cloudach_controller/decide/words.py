"""The operator allows a second set of pods with a word: `cloudach.dev/allow-replacement` on the Model. Pure.

    <hash>        allows the pods with this hash, which the condition ReplacementPending tells
    once:<text>   allows the change that comes together with it, so both can be written down beforehand
    always        allows every change

The first two are spent once: the RayService keeps the word that was used last. Release 0.2.0 and those before it asked
for a number, which approves nothing. Those releases acted on theirs at once, so a number that stands there is used
up.
"""

from __future__ import annotations

from cloudach_model_api.model import Model
from cloudach_model_api.names import ANNOTATION_ALLOW_REPLACEMENT

from ..settings import Settings

ALWAYS = "always"
ONCE = "once:"
_LONGEST = 253


def allows(model: Model, settings: Settings, *, asked: str, spent: str) -> bool:
    """`asked` is the hash of the pods that the Model asks for. `spent` is the word that was used last."""
    if settings.rollout.replacement == "at_once":
        return True
    word = _word(model)
    if word == ALWAYS:
        return True
    return word != spent and (word == asked or word.startswith(ONCE))


def spent_now(model: Model, *, asked: str, spent: str, begins: bool) -> str:
    """Returns the word that counts as used from now on. `begins` says that pods with the hash `asked` are started.

    A `once:` word is spent when it is first seen, whether anything was to be replaced or not. It came with one change,
    and was not meant for later ones.
    """
    word = _word(model)
    if word.startswith(ONCE) or (begins and word == asked):
        return word
    return spent


def command(model: Model, asked: str, *, spent: str) -> str:
    """Returns the command that lets the replacement begin. A word that is spent would do nothing, so
    another is made.
    """
    meta = model.metadata
    word = asked if asked != spent else f"{ONCE}{asked}"
    return f"kubectl annotate model {meta.name} -n {meta.namespace} --overwrite {ANNOTATION_ALLOW_REPLACEMENT}={word}"


def is_of_an_older_release(model: Model) -> bool:
    """Tells if the word is a generation, which approves nothing any more."""
    word = _word(model)
    return word.isdigit() and len(word) < 16


def _word(model: Model) -> str:
    """Returns an empty text for a word that is too long to be kept on the RayService."""
    word = model.metadata.annotations.get(ANNOTATION_ALLOW_REPLACEMENT, "")
    return word if len(word) <= _LONGEST else ""

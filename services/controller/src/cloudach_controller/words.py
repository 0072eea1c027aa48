"""The operator's word for a second set of pods, `cloudach.dev/allow-replacement` on the Model: pure.

    <hash>        for the pods with this hash, as the condition ReplacementPending tells it
    once:<text>   for the change that comes together with it, so that both can be written down beforehand
    always        for every change

The first two are spent once: the RayService keeps the word that was used last. A number, as release 0.2.0 and those
before it asked for, approves nothing: those releases acted on theirs at once, so one that stands there is used up.
"""

from __future__ import annotations

from cloudach_model_api.model import Model
from cloudach_model_api.names import ANNOTATION_ALLOW_REPLACEMENT

from .settings import Settings

ALWAYS = "always"
ONCE = "once:"
_LONGEST = 253


def allows(model: Model, settings: Settings, *, asked: str, spent: str) -> bool:
    """`asked`: the hash of the pods that the Model asks for. `spent`: the word that was used last."""
    if settings.rollout.replacement == "at_once":
        return True
    word = _word(model)
    if word == ALWAYS:
        return True
    return word != spent and (word == asked or word.startswith(ONCE))


def spent_now(model: Model, *, asked: str, spent: str, begins: bool) -> str:
    """The word that counts as used from now on. `begins`: pods with the hash `asked` are started.

    One that is written together with a change is spent when it is first seen, whether anything was to be replaced or
    not: it was not meant for what comes later.
    """
    word = _word(model)
    if word.startswith(ONCE) or (begins and word == asked):
        return word
    return spent


def command(model: Model, asked: str, *, spent: str) -> str:
    """What lets the replacement begin. A word that is spent would do nothing, so then it is another one."""
    meta = model.metadata
    word = asked if asked != spent else f"{ONCE}{asked}"
    return f"kubectl annotate model {meta.name} -n {meta.namespace} --overwrite {ANNOTATION_ALLOW_REPLACEMENT}={word}"


def is_of_an_older_release(model: Model) -> bool:
    """Whether it is a generation, which approves nothing any more."""
    word = _word(model)
    return word.isdigit() and len(word) < 16


def _word(model: Model) -> str:
    """Empty for one that is too long to be kept on the RayService."""
    word = model.metadata.annotations.get(ANNOTATION_ALLOW_REPLACEMENT, "")
    return word if len(word) <= _LONGEST else ""

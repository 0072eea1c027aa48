"""These errors can come between us and an API server.

KubeError             a request failed; `status` is HTTP's, and 0 where there was no answer
|- NotFound           404: the object, or its whole kind
|- Conflict           409: somebody was faster
|- Gone               410: what was asked for is older than the server remembers, so everything is listed anew
|- Refused            400, 403, 422 and the like: asking again changes nothing
`- Unreachable        no answer, or 429 and 5xx: later
"""

from __future__ import annotations


class KubeError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFound(KubeError):
    pass


class Conflict(KubeError):
    pass


class Gone(KubeError):
    pass


class Refused(KubeError):
    pass


class Unreachable(KubeError):
    pass


def is_refusal(error: KubeError) -> bool:
    """Tells if the API server has answered and not taken what it was given. A webhook that fails makes it say 500."""
    return isinstance(error, Refused) or error.status >= 500


def is_unseen(error: KubeError) -> bool:
    """Tells if the API server has answered that there is nothing to be seen.

    With 403 we lack the right to see a kind, and with 404 the server does not have it. Neither is an outage: the answer
    stays the same until somebody grants the right or installs the kind.
    """
    return error.status in (403, 404)


def from_status(status: int, message: str) -> KubeError:
    kinds: dict[int, type[KubeError]] = {404: NotFound, 409: Conflict, 410: Gone}
    if status in kinds:
        return kinds[status](status, message)
    if status == 429 or status >= 500:
        return Unreachable(status, message)
    return Refused(status, message)

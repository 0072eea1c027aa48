"""Every way a request can end other than well, as OpenAI's error envelope.

    GatewayError
    ├── InvalidRequest        400  invalid_request_error
    ├── InvalidApiKey         401  invalid_request_error / invalid_api_key
    ├── PermissionDenied      403  permission_error / key_disabled, model_not_allowed
    ├── ModelNotFound         404  invalid_request_error / model_not_found
    ├── UnknownUrl            404  invalid_request_error / unknown_url
    ├── MethodNotAllowed      405  invalid_request_error / method_not_allowed
    ├── RequestTimeout        408  invalid_request_error / request_timeout
    ├── RequestTooLarge       413  invalid_request_error / request_too_large
    ├── UriTooLong            414  invalid_request_error / uri_too_long
    ├── UnsupportedMediaType  415  invalid_request_error / unsupported_media_type
    ├── HeadTooLarge          431  invalid_request_error / head_too_large
    ├── RateLimited           429  requests | tokens / rate_limit_exceeded
    ├── NeverFits             429  tokens / rate_limit_exceeded, x-should-retry: false
    ├── ClientTooSlow         499  never sent: the client was cut off, and this is for the log
    ├── InternalError         500  server_error / internal_error
    ├── NotImplementedHere    501  invalid_request_error / not_implemented
    ├── UpstreamError         502  server_error / upstream_error
    ├── Overloaded            503  server_error / server_is_overloaded
    ├── ModelNotReady         503  server_error / model_not_ready
    ├── UpstreamTimeout       504  server_error / timeout
    └── UnsupportedVersion    505  invalid_request_error / http_version_not_supported

`message` is shown to the caller; `cause` is only logged, under the request id. No exception of a third party
crosses a layer: the module that calls a library turns its errors into these.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

from openai_wire.errors import error_body, error_frame

Error = TypeVar("Error", bound=BaseException)


class Budget(NamedTuple):
    """One limit of a key as its caller sees it.

    limit: units a minute. remaining: units left now. reset_s: seconds until the whole limit is available again.
    """

    limit: int
    remaining: int
    reset_s: float


class LimitState(NamedTuple):
    """The x-ratelimit-* headers say this; None where the key has no such limit."""

    requests: Budget | None = None
    tokens: Budget | None = None


class GatewayError(Exception):
    """`retry_after_s`: seconds after which the same request has a chance. `should_retry`: overrides what the SDKs make
    of the status. `limits`: what the rate-limit headers say."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        cause: str | None = None,
        limits: LimitState | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.cause = cause
        self.limits = limits
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.headers: list[tuple[bytes, bytes]] = []

    def body(self) -> bytes:
        """The whole response."""
        return error_body(self.message, type=self.type, param=self.param, code=self.code)

    def frame(self) -> bytes:
        """The last event of a stream that has begun."""
        return error_frame(self.message, type=self.type, param=self.param, code=self.code)

    def retry_headers(self) -> list[tuple[bytes, bytes]]:
        """Retry-After in whole seconds, rounded up, at least 1; retry-after-ms with the exact figure."""
        found: list[tuple[bytes, bytes]] = []
        should_retry = self.should_retry
        if self.retry_after_s is not None:
            milliseconds = max(1, math.ceil(self.retry_after_s * 1000))
            found.append((b"retry-after", b"%d" % max(1, math.ceil(milliseconds / 1000))))
            found.append((b"retry-after-ms", b"%d" % milliseconds))
            if should_retry is None and milliseconds > LONGEST_HONOURED_WAIT_MS:
                should_retry = False
        if should_retry is not None:
            found.append((b"x-should-retry", b"true" if should_retry else b"false"))
        return found


def without_frames(error: Error) -> Error:
    """Returns the error in a form that can be kept.

    An exception holds the frames that it and its causes came through. They hold all of their request, which would wait
    for the garbage collector.
    """
    left: list[BaseException] = [error]
    while left:
        one = left.pop()
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
        one.__traceback__ = one.__cause__ = one.__context__ = None
    return error


# Above this the official SDKs ignore Retry-After and retry too early, so they are told not to retry at all.
LONGEST_HONOURED_WAIT_MS = 60_000


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


class InvalidApiKey(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class PermissionDenied(GatewayError):
    status = 403
    type = "permission_error"

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code


class ModelNotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model}` does not exist or you do not have access to it.", param="model")


class UnknownUrl(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class RequestTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UriTooLong(GatewayError):
    status = 414
    type = "invalid_request_error"
    code = "uri_too_long"


class HeadTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


class NotImplementedHere(GatewayError):
    status = 501
    type = "invalid_request_error"
    code = "not_implemented"


class UnsupportedVersion(GatewayError):
    status = 505
    type = "invalid_request_error"
    code = "http_version_not_supported"


class UnsupportedMediaType(GatewayError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(GatewayError):
    """Over a limit now. `kind` is 'requests' or 'tokens'; concurrency counts as 'requests'."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str, retry_after_s: float, limits: LimitState | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s, limits=limits)
        self.type = kind


class NeverFits(GatewayError):
    """The request alone is larger than the key's whole limit: waiting does not help."""

    status = 429
    type = "tokens"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, limits: LimitState | None = None) -> None:
        super().__init__(message, limits=limits, should_retry=False)


class ClientTooSlow(GatewayError):
    status = 499
    type = "invalid_request_error"
    code = "client_too_slow"

    def __init__(self) -> None:
        super().__init__("The client did not read its stream.")


class InternalError(GatewayError):
    pass


class UpstreamError(GatewayError):
    status = 502
    code = "upstream_error"


class Overloaded(GatewayError):
    status = 503
    code = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after_s: float, cause: str | None = None) -> None:
        super().__init__(message, cause=cause, retry_after_s=retry_after_s)


class ModelNotReady(GatewayError):
    status = 503
    code = "model_not_ready"

    def __init__(self, message: str, *, retry_after_s: float, cause: str | None = None) -> None:
        super().__init__(message, param="model", cause=cause, retry_after_s=retry_after_s)


class UpstreamTimeout(GatewayError):
    status = 504
    code = "timeout"

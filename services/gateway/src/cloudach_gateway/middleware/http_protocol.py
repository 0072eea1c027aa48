"""uvicorn's HTTP parser, with our words for what is no HTTP: that never becomes a request that middleware could see."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import InvalidRequest
from ..record import RequestRecord

_HEAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"connection: close\r\n\r\n%b"
)


class EnvelopeHttpProtocol(HttpToolsProtocol):
    def send_400_response(self, msg: str) -> None:
        body = InvalidRequest("The request is not valid HTTP.", code="invalid_http").body()
        self.transport.write(_HEAD % (len(body), RequestRecord(method="", path="").id.encode(), body))
        self.transport.close()

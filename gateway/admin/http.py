"""HTTP/1.1 answers of the admin port, as bytes."""

from __future__ import annotations

import h11

Response = tuple[int, str, bytes]
"""Status, content type, body."""


def response_bytes(connection: h11.Connection, response: Response, *, bare: bool = False) -> bytes:
    """The whole response, after which the connection ends.

    bare: without the body, whose length is said all the same, as HEAD asks for.
    """
    status, content_type, body = response
    headers = [
        ("content-type", content_type),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    head = connection.send(h11.Response(status_code=status, headers=headers))
    data = b"" if bare else connection.send(h11.Data(data=body))
    return (head or b"") + (data or b"")

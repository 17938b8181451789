"""HTTP/1.1 over one connection with as little work as possible: requests are bytes that were made before.

Only the standard library, so that a load generator measures the service and not a client library.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote, urlencode


def request_bytes(method: str, path: str, body: object = None, params: list[tuple[str, str]] | None = None) -> bytes:
    """Return a whole request, with a body of JSON unless it is ``None``."""
    target = path if not params else f"{path}?{urlencode(params, quote_via=quote)}"
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: loopback\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode("ascii") + content


class ConnectionLostError(Exception):
    """The connection ended before the answer did; whether the request was served is unknown."""


class Connection:
    """A connection to ``http://host:port`` that stays open between requests."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.address, self._host, self._port = address, host, int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer.

        Raises
        ------
        ConnectionLostError
            If no whole answer came.
        """
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port, limit=2**24)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            length = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionLostError(repr(error)) from error
        if b"\r\nconnection: close" in lower:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

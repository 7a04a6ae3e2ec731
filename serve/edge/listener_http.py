"""HTTP/1.1 as uvicorn serves it, but with the body of a request that offers another protocol.

Java's `HttpClient`, for one, offers HTTP/2 (`Upgrade: h2c`) with what it posts. A server may ignore
that (RFC 9110, section 7.8). uvicorn does, but its parser has stopped after the head by then, and
the body is lost: https://github.com/Kludex/uvicorn/issues/2722
"""

from collections.abc import Callable
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_FRAMING: Final = (b"content-length", b"transfer-encoding")
_OF_HEADS: Final = ("on_message_begin", "on_url", "on_header", "on_headers_complete")


class HttpProtocol(HttpToolsProtocol):
    """One connection. Only offers of WebSocket are taken."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = cast(httptools.HttpRequestParser, _Parser(self, self.parser))

    def on_message_complete(self) -> None:
        """Know that a request is whole: it is not where the parser only stops at an offer."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def takes_offer(self) -> bool:
        """Tell whether the request under way is for WebSocket."""
        return self._should_upgrade()


class _Parser:
    """A parser that stops at no offer but that of WebSocket."""

    def __init__(self, protocol: HttpProtocol, parser: Any) -> None:
        self._protocol = protocol
        self._parser = parser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                if self._protocol.takes_offer():
                    raise
                data = data[stop.args[0] :]
                self._go_on()
            else:
                return

    def _go_on(self) -> None:
        """Have another parser read the rest, after a head that says how long it is."""
        rest = _Rest(self._protocol)
        self._parser = httptools.HttpRequestParser(rest)
        framing = [pair for pair in self._protocol.headers if pair[0] in _FRAMING]
        lines = [b"POST / HTTP/1.1", *(b"%s: %s" % pair for pair in framing), b"", b""]
        self._parser.feed_data(b"\r\n".join(lines))
        rest.begun = True


class _Rest:
    """Passes on what a parser finds, but for the head that it begins with.

    Attributes:
        begun: That head is over.
    """

    def __init__(self, protocol: HttpProtocol) -> None:
        self.begun = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
        for name in _OF_HEADS:
            setattr(self, name, self._later(getattr(protocol, name)))

    def _later(self, call: Callable[..., None]) -> Callable[..., None]:
        def passed(*facts: bytes) -> None:
            if self.begun:
                call(*facts)

        return passed

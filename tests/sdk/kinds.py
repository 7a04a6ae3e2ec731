"""Every SDK with every transport that it has: the tests run with each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from tests.sdk.client import Client, Options
from tests.sdk.client_javascript import javascript_client, transports
from tests.sdk.client_python import python_client


@dataclass(frozen=True)
class Kind:
    """An SDK, and how it connects.

    Attributes:
        sdk: `javascript` or `python`.
        transport: The last part of the endpoint's path.
        protobuf: Whether it speaks Protobuf instead of JSON.
    """

    sdk: str
    transport: str = "websocket"
    protobuf: bool = False

    def __str__(self) -> str:
        return f"{self.sdk}-{self.transport}-{'protobuf' if self.protobuf else 'json'}"

    @asynccontextmanager
    async def client(
        self, address: str, options: Options, *, emulation: str = ""
    ) -> AsyncIterator[Client]:
        """Make a client that has not connected yet.

        Args:
            address: `host:port` of the edge.
            options: How it connects.
            emulation: `host:port` of the edge that gets its commands; empty: the same one.
        """
        if self.sdk == "python":
            async with python_client(address, options, protobuf=self.protobuf) as client:
                yield client
            return
        given = {key: value for key, value in asdict(options).items() if value is not None}
        given["emulationEndpoint"] = f"http://{emulation or address}/emulation"
        found = transports(address, self.transport)
        async with javascript_client(found, given, protobuf=self.protobuf) as client:
            yield client


JAVASCRIPT = (
    Kind("javascript", "websocket"),
    Kind("javascript", "http_stream"),
    Kind("javascript", "sse"),
    Kind("javascript", "websocket", protobuf=True),
    Kind("javascript", "http_stream", protobuf=True),
)
PYTHON = (Kind("python"), Kind("python", protobuf=True))

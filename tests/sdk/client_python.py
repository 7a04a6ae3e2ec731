"""A client of the Python SDK."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import centrifuge  # type: ignore[import-untyped]  # has no types

from tests.sdk.client import WAIT_S, CallError, Client, Options

CONNECTION = ("connecting", "connected", "disconnected", "error")
SUBSCRIPTION = ("subscribing", "subscribed", "unsubscribed", "publication", "join", "leave")


class PythonClient(Client):
    """The SDK's coroutines, with what they return as plain data."""

    def __init__(self, address: str, options: Options, *, protobuf: bool = False) -> None:
        super().__init__()
        self._protobuf = protobuf
        self._wanted: dict[str, asyncio.Future[str]] = {}
        self._client = centrifuge.Client(
            f"ws://{address}/connection/websocket",
            token=options.token,
            get_token=self._ask if options.asks else None,
            data=None if options.data is None else self._pack(options.data),
            use_protobuf=protobuf,
            timeout=WAIT_S,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.2,
            proxy=None,
        )
        events = self._client.events
        for name in CONNECTION:
            setattr(events, f"on_{name}", self._teller(name))
        for name in SUBSCRIPTION:
            setattr(events, f"on_{name}", self._teller(f"server_{name}"))
        self._calls: dict[str, Callable[..., Awaitable[Any]]] = {
            "connect": self._client.connect,
            "disconnect": self._client.disconnect,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "history": self._history,
            "presence": self._client.presence,
            "presence_stats": self._client.presence_stats,
            "rpc": self._rpc,
            "give": self._give,
            "set_token": self._set_token,
        }

    async def call(self, name: str, *arguments: Any) -> Any:
        """See `Client`."""
        try:
            return self._plain(await self._calls[name](*arguments))
        except centrifuge.exceptions.ReplyError as error:
            raise CallError(error.code, error.message) from error

    def _teller(self, name: str, channel: str = "") -> Callable[[Any], Awaitable[None]]:
        async def tell(event: Any) -> None:
            found = self._plain(event)
            found.update(found.pop("pub", {}))
            self.tell(name, {"channel": channel} | found)

        return tell

    def _plain(self, found: Any) -> Any:
        if isinstance(found, bytes):
            return json.loads(found)
        if dataclasses.is_dataclass(found):
            fields = dataclasses.fields(found)
            return {field.name: self._plain(getattr(found, field.name)) for field in fields}
        if isinstance(found, dict):
            return {key: self._plain(part) for key, part in found.items()}
        return [self._plain(part) for part in found] if isinstance(found, list) else found

    def _pack(self, data: Any) -> Any:
        return json.dumps(data).encode() if self._protobuf else data

    async def _ask(self, channel: str = "") -> str:
        self._wanted[channel] = asyncio.get_running_loop().create_future()
        self.tell("token_wanted", {"channel": channel})
        return await self._wanted[channel]

    async def _give(self, channel: str, token: str) -> None:
        self._wanted[channel].set_result(token)

    async def _set_token(self, token: str) -> None:
        self._client.set_token(token)

    def _options(self, wishes: Mapping[str, Any]) -> dict[str, Any]:
        made = {
            "delta": centrifuge.DeltaType,
            "tags_filter": centrifuge.FilterNode,
            "data": self._pack,
        }
        found = {key: made.get(key, bool)(wish) for key, wish in wishes.items()}
        if found.pop("asks", False):
            found["get_token"] = self._ask
        return found

    async def _subscribe(self, channel: str, wishes: Mapping[str, Any]) -> None:
        subscription = self._client.get_subscription(channel)
        if subscription is None:
            subscription = self._client.new_subscription(
                channel,
                min_resubscribe_delay=0.05,
                max_resubscribe_delay=0.2,
                **self._options(wishes),
            )
            for name in SUBSCRIPTION:
                setattr(subscription.events, f"on_{name}", self._teller(name, channel))
            subscription.events.on_error = self._teller("subscription_error", channel)
        await subscription.subscribe()

    async def _unsubscribe(self, channel: str) -> None:
        subscription = self._client.get_subscription(channel)
        assert subscription is not None
        await subscription.unsubscribe()

    async def _publish(self, channel: str, data: Any) -> Any:
        return await self._client.publish(channel, self._pack(data))

    async def _rpc(self, method: str, data: Any) -> Any:
        return await self._client.rpc(method, self._pack(data))

    async def _history(self, channel: str, wishes: dict[str, Any]) -> Any:
        since = wishes.get("since")
        position = None if since is None else centrifuge.StreamPosition(**since)
        return await self._client.history(channel, **wishes | {"since": position})


@asynccontextmanager
async def python_client(
    address: str, options: Options, *, protobuf: bool = False
) -> AsyncIterator[PythonClient]:
    """Make a client that has not connected yet; it is disconnected at the end."""
    client = PythonClient(address, options, protobuf=protobuf)
    try:
        yield client
    finally:
        await client.call("disconnect")

"""What the calls of the server API do, without HTTP. Clients' permissions do not matter here."""

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from actors.errors import MessageError, RaywireError
from actors.message import Ack, Meta, check_channel, check_version
from actors.settings.tree import ChannelSettings, Settings
from actors.store.interface import EdgeStore
from serve.api.clients import ClientCalls
from serve.api.dead import DeadCalls
from serve.api.intake import Intake, Outgoing, Result
from serve.api.shapes import (
    DEAD_LETTER,
    ApiError,
    BatchRequest,
    BroadcastRequest,
    ChannelRequest,
    Command,
    HistoryRequest,
    InfoRequest,
    PublishRequest,
    as_api_error,
)
from serve.protocol.messages import EMPTY, ErrorCode

Reply = dict[str, Any]
Gone = Callable[[], Awaitable[bool]]
"""Tells whether whoever asked has gone, and will not hear the answer."""

_FRESH_S: Final = 10.0
"""An edge that has not written its numbers for so long is not listed by `info`."""

IDEMPOTENCY_KEY_MAX: Final = 255
"""Bytes of an idempotency key: it is part of a key in Valkey."""

COMMANDS_MAX: Final = 10_000
"""Commands of one batch, or channels of a broadcast: in a batch, each channel counts as one."""


_NOT_TRIED: Final = "not tried, as a command before it could not be done for now"


async def _stays() -> bool:
    return False


class _Publication(msgspec.Struct, omit_defaults=True):
    """A publication as a history shows it: `delta` is for subscribers only."""

    offset: int
    tags: dict[str, str] = {}
    info: msgspec.Raw = EMPTY
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode_stored: Final = msgspec.json.Decoder(_Publication).decode


class ApiCalls:
    """The calls. Each returns the member `result` of the answer, or raises.

    Attributes:
        dead: Those for dead letters.
        clients: Those that concern clients.

    Raises:
        RaywireError: From every call; `as_api_error` says what it means to the caller.
    """

    def __init__(
        self,
        settings: Settings,
        store: EdgeStore,
        intake: Intake,
        clients: ClientCalls,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dead = DeadCalls(settings, store)
        self.clients = clients
        self._settings = settings
        self._store = store
        self._intake = intake
        self._clock = clock

    async def publish(self, request: PublishRequest) -> Reply:
        """Publish a message; returns after the commit."""
        outgoing = _outgoing(request)[0]
        return _position((await self._intake.publish_many([outgoing]))[0])

    async def broadcast(self, request: BroadcastRequest) -> Reply:
        """Publish a message to several channels; each has a response of its own."""
        results = await self._intake.publish_many(_outgoing(request))
        return _responses(results)

    async def history(self, request: HistoryRequest) -> Reply:
        """Return publications of a channel."""
        options = self._options(request.channel)
        if not options.has_history:
            raise ApiError(ErrorCode.NOT_AVAILABLE, "the channel keeps no history")
        since = request.since
        reverse = bool(request.reverse)
        if reverse and since is not None and since.offset == 0:
            raise ApiError(ErrorCode.BAD_REQUEST, "there is nothing before offset 0")
        limit = request.limit or 0
        found = await self._store.history(
            request.channel,
            since=None if since is None else since.offset,
            limit=None if limit < 0 else limit,
            reverse=reverse,
            meta_ttl_s=options.history_meta_ttl_s,
        )
        if since is not None and since.epoch and since.epoch != found.epoch:
            raise ApiError(ErrorCode.UNRECOVERABLE_POSITION)
        return {
            "publications": [_publication(offset, body) for offset, body in found.publications],
            "epoch": found.epoch,
            "offset": found.offset,
        }

    async def presence(self, request: ChannelRequest) -> Reply:
        """Return who is in a channel."""
        self._check_presence(request.channel)
        there = await self._store.presence(request.channel)
        return {"presence": {client: msgspec.Raw(info) for client, info in there.items()}}

    async def presence_stats(self, request: ChannelRequest) -> Reply:
        """Return how many are in a channel."""
        self._check_presence(request.channel)
        clients, users = await self._store.presence_stats(request.channel)
        return {"num_clients": clients, "num_users": users}

    async def info(self, request: InfoRequest) -> Reply:
        """Return the edges that live, by the numbers that they wrote last."""
        del request
        parts = await self._store.read_stats()
        oldest = self._clock() - _FRESH_S
        return {
            "nodes": [
                _node(part.partition(":")[2], numbers)
                for part, numbers in sorted(parts.items())
                if numbers.get("kind") == "edge" and numbers.get("at_s", 0) >= oldest
            ]
        }

    async def batch(self, request: BatchRequest, gone: Gone = _stays) -> list[Reply]:
        """Do several calls; an error is the reply of its call alone. See `do_in_turn`."""
        if sum(map(weight, request.commands)) > COMMANDS_MAX:
            raise ApiError(ErrorCode.BAD_REQUEST, f"more than {COMMANDS_MAX} commands and channels")
        if not request.parallel:
            return await self.do_in_turn(request.commands, gone)
        # All that publishes goes in together, and so in order; the rest runs beside it.
        async with asyncio.TaskGroup() as group:
            published = group.create_task(self._publish_together(request.commands))
            others = {
                index: group.create_task(self.do(command))
                for index, command in enumerate(request.commands)
                if command.publish is None and command.broadcast is None
            }
        replies = published.result()
        return [
            others[index].result() if index in others else replies[index]
            for index in range(len(request.commands))
        ]

    async def _publish_together(self, commands: Sequence[Command]) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        spans: dict[int, tuple[int, int]] = {}
        outgoing: list[Outgoing] = []
        for index, command in enumerate(commands):
            request = command.publish or command.broadcast
            if request is None:
                continue
            try:
                more = _outgoing(request)
            except MessageError as error:
                replies[index] = {"error": as_api_error(error).body}
                continue
            spans[index] = (len(outgoing), len(outgoing) + len(more))
            outgoing += more
        results = await self._intake.publish_many(outgoing)
        for index, (start, end) in spans.items():
            if commands[index].publish is None:
                replies[index] = {"broadcast": _responses(results[start:end])}
            else:
                response = _response(results[start])
                replies[index] = (
                    {"publish": response["result"]} if "result" in response else response
                )
        return replies

    async def do_in_turn(self, commands: Sequence[Command | ApiError], gone: Gone) -> list[Reply]:
        """Do calls one after the other; where there is an error instead of one, it is the reply.

        Where one could not be done for now (100), the rest is not tried and has that error, too:
        each might wait as long. When `gone` says so, the rest is left out: whoever asked may ask
        again, and what came first must not come last.
        """
        replies: list[Reply] = []
        for command in commands:
            if await gone():
                break
            if isinstance(command, ApiError):
                replies.append({"error": command.body})
                continue
            replies.append(await self.do(command))
            if _was_in_vain(command, replies[-1]):
                error = ApiError(ErrorCode.INTERNAL_SERVER_ERROR, _NOT_TRIED)
                replies += [{"error": error.body}] * (len(commands) - len(replies))
                break
        return replies

    async def do(self, command: Command) -> Reply:
        """Do one call of a batch; an error is its reply."""
        for name in Command.__struct_fields__:
            request = getattr(command, name)
            if request is None:
                continue
            try:
                call = getattr(self, name, None) or getattr(self.clients, name)
                return {name: await call(request)}
            except RaywireError as error:
                return {"error": as_api_error(error).body}
        return {"error": ApiError(ErrorCode.METHOD_NOT_FOUND).body}

    def _options(self, channel: str) -> ChannelSettings:
        check_channel(channel)
        options = self._settings.channel_settings(channel)
        if options is None:
            raise ApiError(ErrorCode.UNKNOWN_CHANNEL)
        return options

    def _check_presence(self, channel: str) -> None:
        if not self._options(channel).presence:
            raise ApiError(ErrorCode.NOT_AVAILABLE, "the channel keeps no presence")


def _was_in_vain(command: Command, reply: Reply) -> bool:
    """Return whether a call found Valkey away, or had no result in time.

    Not one of the user's function: that it failed says nothing of the next.
    """
    parts = [reply, *reply.get("broadcast", {}).get("responses", ())]
    return command.rpc is None and any(
        part.get("error", {}).get("code") == ErrorCode.INTERNAL_SERVER_ERROR for part in parts
    )


def weight(command: Command) -> int:
    """Return for how many commands one counts."""
    return 1 if command.broadcast is None else max(1, len(command.broadcast.channels))


def _outgoing(request: PublishRequest | BroadcastRequest) -> list[Outgoing]:
    """Return what a request publishes; the intake checks channels and data.

    Raises:
        MessageError: The base64, the idempotency key or the version is not one, or there are too
            many channels.
    """
    channels = [request.channel] if isinstance(request, PublishRequest) else request.channels
    if len(channels) > COMMANDS_MAX:
        raise MessageError(f"more than {COMMANDS_MAX} channels")
    if request.idempotency_key and len(request.idempotency_key.encode()) > IDEMPOTENCY_KEY_MAX:
        raise MessageError(f"idempotency_key is longer than {IDEMPOTENCY_KEY_MAX} bytes")
    version, version_epoch = request.version or 0, request.version_epoch or ""
    check_version(version, version_epoch)
    data = _data(request)
    meta = Meta(
        tags=request.tags or {},
        key=request.idempotency_key or "",
        skip_history=bool(request.skip_history),
        delta=bool(request.delta),
        version=version,
        version_epoch=version_epoch,
    )
    if not channels:
        raise MessageError("channels is empty")
    return [Outgoing(channel, data, meta) for channel in channels]


def _data(request: PublishRequest | BroadcastRequest) -> bytes:
    if request.b64data:
        try:
            return base64.b64decode(request.b64data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MessageError(f"b64data is not base64: {error}") from error
    if request.data is msgspec.UNSET:
        raise MessageError("data is missing")
    return bytes(request.data)


def _position(result: Result) -> Reply:
    """Return the result of one publication, or raise its error."""
    if not isinstance(result, Ack):
        raise result
    if result.error:
        raise ApiError(DEAD_LETTER, result.error)
    if not result.offset:
        return {}
    return {"offset": result.offset, "epoch": result.epoch}


def _response(result: Result) -> Reply:
    try:
        return {"result": _position(result)}
    except RaywireError as error:
        return {"error": as_api_error(error).body}


def _responses(results: Sequence[Result]) -> Reply:
    return {"responses": [_response(result) for result in results]}


def _publication(offset: int, body: bytes) -> _Publication:
    """Put the offset into a stored publication, which is an object and never empty."""
    return _decode_stored(b'{"offset":%d,%b' % (offset, body[1:]))


def _node(uid: str, numbers: dict[str, Any]) -> Reply:
    gauges = numbers.get("gauges", {})
    return {
        "uid": uid,
        "name": f"{numbers.get('node', '')}_{numbers.get('pid', 0)}",
        "version": str(numbers.get("version", "")),
        "num_clients": int(gauges.get("num_clients", 0)),
        "num_users": int(gauges.get("num_users", 0)),
        "num_channels": int(gauges.get("num_channels", 0)),
        "num_subs": int(gauges.get("num_subs", 0)),
        "uptime": int(gauges.get("uptime_s", 0)),
        "metrics": {"interval": 10, "items": dict(numbers.get("rates", {}))},
        "process": {"cpu": numbers.get("cpu_s", 0.0), "rss": numbers.get("rss_bytes", 0)},
    }

"""The JSON form of the client protocol: messages joined by newlines.

https://centrifugal.dev/docs/transports/client_protocol#json-protocol
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from serve.protocol.json_lenient import decoded
from serve.protocol.messages import (
    Command,
    CommandBody,
    Connect,
    ConnectResult,
    DisconnectCode,
    Disconnected,
    DisconnectError,
    Failure,
    History,
    HistoryResult,
    Join,
    Leave,
    Ping,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Publish,
    PublishResult,
    Push,
    Refresh,
    Refreshed,
    RefreshResult,
    Result,
    Rpc,
    RpcResult,
    Send,
    SubRefresh,
    SubRefreshResult,
    Subscribe,
    Subscribed,
    SubscribeResult,
    Uint32,
    Unsubscribe,
    Unsubscribed,
    UnsubscribeResult,
)


class _Line(Struct):
    """A command as it is written. Where several methods stand, the first here counts."""

    id: Uint32 = 0
    connect: Connect | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    publish: Publish | None = None
    presence: Presence | None = None
    presence_stats: PresenceStats | None = None
    history: History | None = None
    ping: Ping | None = None
    send: Send | None = None
    rpc: Rpc | None = None
    refresh: Refresh | None = None
    sub_refresh: SubRefresh | None = None

    @property
    def body(self) -> CommandBody | None:
        return (
            self.connect
            or self.subscribe
            or self.unsubscribe
            or self.publish
            or self.presence
            or self.presence_stats
            or self.history
            or self.ping
            or self.send
            or self.rpc
            or self.refresh
            or self.sub_refresh
        )


_RESULT_KEYS: Final = {
    ConnectResult: b"connect",
    SubscribeResult: b"subscribe",
    UnsubscribeResult: b"unsubscribe",
    PublishResult: b"publish",
    PresenceResult: b"presence",
    PresenceStatsResult: b"presence_stats",
    HistoryResult: b"history",
    RpcResult: b"rpc",
    RefreshResult: b"refresh",
    SubRefreshResult: b"sub_refresh",
}
_PUSH_KEYS: Final = {
    Join: b"join",
    Leave: b"leave",
    Subscribed: b"subscribe",
    Unsubscribed: b"unsubscribe",
    Refreshed: b"refresh",
    Disconnected: b"disconnect",
}
_PONG: Final = Command(0, None)
# Each is used by one thread only, and holds no state between calls.
_encode: Final = msgspec.json.Encoder().encode
_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_connect: Final = msgspec.json.Decoder(Connect).decode


def publication(offset: int, body: bytes) -> Raw:
    """Put the offset into a stored publication; 0: it has none."""
    return Raw(b'{"offset":%d,%b' % (offset, body[1:])) if offset else Raw(body)


def decode_connect(text: bytes) -> Connect:
    """Decode a bare connect request, as one-way clients send it; empty text is an empty request.

    Raises:
        DisconnectError: It is not JSON of that shape.
    """
    if not text.strip():
        return Connect()
    try:
        return decoded(text, _decode_connect)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DisconnectError(DisconnectCode.BAD_REQUEST) from error


class JsonCodec:
    """JSON of a two-way connection; with `one_way`, bare pushes, as section "unidirectional" says.

    https://centrifugal.dev/docs/transports/uni_client_protocol
    """

    binary = False
    ping = b"{}"

    def __init__(self, *, one_way: bool = False) -> None:
        self._one_way = one_way
        self._open, self._shut = (b"{", b"}") if one_way else (b'{"push":{', b"}}")

    def decode(self, frame: bytes) -> list[Command]:
        """See `Codec.decode`."""
        try:
            lines = frame.strip().split(b"\n")
            return [_command(decoded(line, _decode_line)) for line in lines]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise DisconnectError(DisconnectCode.BAD_REQUEST) from error

    def reply(self, command_id: int, result: Result) -> bytes:
        """See `Codec.reply`. One-way clients know only the reply to connect."""
        key, value = _RESULT_KEYS[type(result)], _encode(result)
        if self._one_way:
            return b'{"%b":%b}' % (key, value)
        return b'{"id":%d,"%b":%b}' % (command_id, key, value)

    def error(self, command_id: int, code: Failure) -> bytes:
        """See `Codec.error`. There are none for one-way clients."""
        temporary = b',"temporary":true' if code.temporary else b""
        return b'{"id":%d,"error":{"code":%d,"message":%b%b}}' % (
            command_id,
            code.value,
            _encode(code.reason),
            temporary,
        )

    def push(self, channel: str, body: Push) -> bytes:
        """See `Codec.push`."""
        where = b'"channel":%b,' % _encode(channel) if channel else b""
        key, value = _PUSH_KEYS[type(body)], _encode(body)
        return b'%b%b"%b":%b%b' % (self._open, where, key, value, self._shut)

    def publications(self, channel: str, first: int, bodies: Sequence[bytes]) -> list[bytes]:
        """See `Codec.publications`. The bodies are spliced, never decoded."""
        head = b'%b"channel":%b,"pub":{' % (self._open, _encode(channel))
        tail = self._shut
        if not first:
            return [head + body[1:] + tail for body in bodies]
        return [
            b'%b"offset":%d,%b%b' % (head, offset, body[1:], tail)
            for offset, body in enumerate(bodies, first)
        ]

    def join(self, messages: Iterable[bytes]) -> bytes:
        """See `Codec.join`."""
        return b"\n".join(messages)


def _command(line: _Line) -> Command:
    body = line.body
    if isinstance(body, Send):
        return Command(line.id, body)
    if line.id == 0:
        return _PONG
    if body is None:
        raise DisconnectError(DisconnectCode.BAD_REQUEST)
    return Command(line.id, body)


JSON: Final = JsonCodec()
ONE_WAY_JSON: Final = JsonCodec(one_way=True)

"""Why commands fail, subscriptions and connections end: the codes of the client protocol."""

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from actors.errors import RaywireError


class _Code(enum.IntEnum):
    @property
    def reason(self) -> str:
        """The text that goes with the code."""
        return self.name.lower().replace("_", " ")


class ErrorCode(_Code):
    """Why a command failed (https://centrifugal.dev/docs/server/codes#client-error-codes)."""

    INTERNAL_SERVER_ERROR = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    METHOD_NOT_FOUND = 104
    ALREADY_SUBSCRIBED = 105
    LIMIT_EXCEEDED = 106
    BAD_REQUEST = 107
    NOT_AVAILABLE = 108
    TOKEN_EXPIRED = 109
    EXPIRED = 110
    TOO_MANY_REQUESTS = 111
    UNRECOVERABLE_POSITION = 112
    CONCURRENT_PAGINATION = 113

    @property
    def temporary(self) -> bool:
        """Whether the client should try again."""
        return self in _TEMPORARY


_TEMPORARY: Final = frozenset(
    {
        ErrorCode.INTERNAL_SERVER_ERROR,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.CONCURRENT_PAGINATION,
    }
)


@dataclass(frozen=True, slots=True)
class OwnError:
    """An error that an application has made up: codes 400 to 1999, or other words for ours."""

    value: int
    reason: str
    temporary: bool


Failure: TypeAlias = ErrorCode | OwnError
"""Why a command failed."""


class UnsubscribeCode(_Code):
    """Why the server ended a subscription. From 2500 on the client subscribes again by itself.

    https://centrifugal.dev/docs/server/codes#unsubscribe-codes
    """

    SERVER_UNSUBSCRIBE = 2000
    INSUFFICIENT_STATE = 2500
    SUBSCRIPTION_EXPIRED = 2501
    STATE_INVALIDATED = 2502


class DisconnectCode(_Code):
    """Why the server ended a connection. 3500 to 3999 (and 4500 to 4999): do not come back.

    https://centrifugal.dev/docs/server/codes#disconnect-codes
    """

    CONNECTION_CLOSED = 3000
    SHUTDOWN = 3001
    INTERNAL_SERVER_ERROR = 3004
    CONNECTION_EXPIRED = 3005
    SUBSCRIPTION_EXPIRED = 3006
    SLOW = 3008
    WRITE_ERROR = 3009
    INSUFFICIENT_STATE = 3010
    FORCE_RECONNECT = 3011
    NO_PONG = 3012
    TOO_MANY_REQUESTS = 3013
    STATE_INVALIDATED = 3014
    INVALID_TOKEN = 3500
    BAD_REQUEST = 3501
    STALE = 3502
    FORCE_DISCONNECT = 3503
    CONNECTION_LIMIT = 3504
    CHANNEL_LIMIT = 3505
    INAPPROPRIATE_PROTOCOL = 3506
    PERMISSION_DENIED = 3507
    NOT_AVAILABLE = 3508
    TOO_MANY_ERRORS = 3509


def one_way_close(code: Failure) -> DisconnectCode:
    """Return how a one-way client, which knows no errors, is told that it cannot connect.

    https://centrifugal.dev/docs/transports/uni_client_protocol
    """
    return _ONE_WAY_CLOSE.get(code.value, DisconnectCode.INTERNAL_SERVER_ERROR)


_ONE_WAY_CLOSE: Final[dict[int, DisconnectCode]] = {
    ErrorCode.TOKEN_EXPIRED: DisconnectCode.CONNECTION_EXPIRED,
    ErrorCode.EXPIRED: DisconnectCode.CONNECTION_EXPIRED,
    ErrorCode.TOO_MANY_REQUESTS: DisconnectCode.TOO_MANY_REQUESTS,
    ErrorCode.PERMISSION_DENIED: DisconnectCode.PERMISSION_DENIED,
}


class CommandError(RaywireError):
    """A command fails, and the connection goes on. Takes an `ErrorCode`."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class DisconnectError(RaywireError):
    """The connection ends. Takes a `DisconnectCode`."""

    def __init__(self, code: DisconnectCode) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ends: any code, as the server API may give its own."""

    code: int
    reason: str

    @property
    def frame_reason(self) -> str:
        """The reason, as far as a WebSocket close frame can hold it (RFC 6455, section 5.5)."""
        return self.reason.encode()[:123].decode(errors="ignore")

    @property
    def reconnect(self) -> bool:
        """Whether the client should come back."""
        return not (3500 <= self.code < 4000 or 4500 <= self.code < 5000)

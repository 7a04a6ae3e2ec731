"""What follows from a function's answer. Sans-I/O; reads no clock."""

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from actors.message import check_channel
from serve.auth.tokens import Claims, Grant
from serve.authorise.questions import (
    UNCHANGED,
    AllowConnect,
    AllowPublish,
    AllowRefresh,
    AllowRpc,
    AllowSubRefresh,
    AllowSubscribe,
    ConnectRequest,
    Deny,
    Disconnect,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    SubRefreshRequest,
    SubscribeRequest,
    check_text,
)
from serve.protocol.messages import EMPTY, Close, CommandError, ErrorCode, OwnError, RpcResult

_OVERRIDES: Final = frozenset(
    {
        *("presence", "join_leave", "force_push_join_leave"),
        *("force_positioning", "force_recovery"),
    }
)


@dataclass(frozen=True, slots=True)
class Publishable:
    """A client may publish this JSON text; None: what it gave."""

    data: bytes | None


@dataclass(frozen=True, slots=True)
class Prolonged:
    """Something goes on; of its `Claims`, or its `Grant`, these fields are others from now on."""

    changes: Mapping[str, Any]


Ruling: TypeAlias = (
    Claims | Grant | Publishable | RpcResult | Prolonged | ErrorCode | OwnError | Close
)
Rule: TypeAlias = Callable[[Request], Awaitable[Ruling]]
"""Asks a function of the user's; returns what follows. See `Authoriser.rule`."""


async def no_rule(_: Request) -> Ruling:
    """Ask nobody: for edges without functions.

    Raises:
        CommandError: 108.
    """
    raise CommandError(ErrorCode.NOT_AVAILABLE)


def ruling_of(request: Request, answer: object, wall_s: float) -> Ruling:
    """Return what follows; it holds nothing that the user's code could still change.

    Args:
        request: What was asked.
        answer: What the function returned.
        wall_s: Seconds since the epoch.

    Raises:
        TypeError: It is no answer to that, or holds what is no JSON.
        ValueError: As before.
        MessageError: A channel in it has no valid name.
    """
    if isinstance(answer, Deny):
        return _refusal(answer)
    if isinstance(answer, Disconnect):
        return Close(answer.code, answer.reason)
    kind, rule = _RULES[type(request)]
    if not isinstance(answer, kind):
        raise TypeError(f"it returned {_named(answer)}: return {kind.__name__}, Deny or Disconnect")
    return rule(answer, wall_s)


def _refusal(answer: Deny) -> OwnError:
    known = ErrorCode(answer.code) if answer.code in set(ErrorCode) else None
    temporary = answer.temporary
    if temporary is None:
        temporary = known is not None and known.temporary
    reason = answer.reason or (known.reason if known else "denied")
    return OwnError(int(answer.code), reason, temporary)


def _connect(answer: AllowConnect, wall_s: float) -> Claims | ErrorCode:
    check_text("AllowConnect.user", answer.user)
    if isinstance(answer.channels, str):
        raise TypeError("AllowConnect.channels is text: give a list of names")
    channels = {channel: Grant() for channel in answer.channels}
    for channel in (*channels, *answer.subs):
        check_text("AllowConnect: a channel", channel)
        check_channel(channel)
    for channel, given in answer.subs.items():
        grant = _subscribe(given, wall_s)
        if isinstance(grant, ErrorCode):
            return grant
        channels[channel] = grant
    ttl_s = _ttl_s(answer.expire_at_s, wall_s)
    if ttl_s is not None and ttl_s <= 0:
        return ErrorCode.EXPIRED
    return Claims(
        user=answer.user,
        ttl_s=ttl_s,
        info=_copy(answer.info),
        channels=channels,
        meta=_copy(answer.meta),
        data=_json(answer.data),
        by_function=True,
    )


def _subscribe(answer: AllowSubscribe, wall_s: float) -> Grant | ErrorCode:
    ttl_s = _ttl_s(answer.expire_at_s, wall_s)
    if ttl_s is not None and ttl_s <= 0:
        return ErrorCode.EXPIRED
    return Grant(
        info=_copy(answer.info),
        data=_json(answer.data),
        override=_override(answer.override),
        ttl_s=ttl_s,
        by_function=True,
    )


def _publish(answer: AllowPublish, wall_s: float) -> Publishable:
    del wall_s
    if answer.data is UNCHANGED:
        return Publishable(None)
    return Publishable(msgspec.json.encode(answer.data))


def _rpc(answer: AllowRpc, wall_s: float) -> RpcResult:
    del wall_s
    return RpcResult(_json(answer.data))


def _refresh(answer: AllowRefresh | AllowSubRefresh, wall_s: float) -> Prolonged | ErrorCode:
    ttl_s = _ttl_s(answer.expire_at_s, wall_s)
    if ttl_s is not None and ttl_s <= 0:
        return ErrorCode.EXPIRED
    given = {"info": answer.info}
    if isinstance(answer, AllowRefresh):
        given["meta"] = answer.meta
    changes = {name: _copy(value) for name, value in given.items() if value is not UNCHANGED}
    return Prolonged({"ttl_s": ttl_s, **changes})


_RULES: Final[dict[type[Any], tuple[type[Any], Callable[[Any, float], Ruling]]]] = {
    ConnectRequest: (AllowConnect, _connect),
    SubscribeRequest: (AllowSubscribe, _subscribe),
    PublishRequest: (AllowPublish, _publish),
    RpcRequest: (AllowRpc, _rpc),
    RefreshRequest: (AllowRefresh, _refresh),
    SubRefreshRequest: (AllowSubRefresh, _refresh),
}


def _override(given: Mapping[str, bool]) -> dict[str, bool]:
    unknown = sorted(set(given) - _OVERRIDES)
    if unknown:
        raise ValueError(f"override: there is no {unknown[0]!r}: there are {sorted(_OVERRIDES)}")
    return {name: bool(value) for name, value in given.items()}


def _ttl_s(expire_at_s: float | None, wall_s: float) -> float | None:
    if expire_at_s is None:
        return None
    if math.isnan(expire_at_s):
        raise ValueError("expire_at_s is not a number")
    return expire_at_s - wall_s


def _json(value: Any) -> Raw:
    return EMPTY if value is None else Raw(msgspec.json.encode(value))


def _copy(value: Any) -> Any:
    return None if value is None else msgspec.json.decode(msgspec.json.encode(value))


def _named(answer: object) -> str:
    if inspect.iscoroutine(answer):
        answer.close()
        return "a coroutine (declare it with async def)"
    return "None" if answer is None else f"an object of type {type(answer).__name__}"

"""What follows from what a function returns."""

import math
from typing import Any

import pytest
from msgspec import Raw

from actors.errors import MessageError
from serve.auth.tokens import Claims, Grant
from serve.authorise import (
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
)
from serve.authorise.ruling import Prolonged, Publishable, ruling_of
from serve.protocol.messages import EMPTY, Close, ErrorCode, OwnError, RpcResult

WHO = {"client": "c", "user": "ann"}
CONNECT = ConnectRequest(client="c")
SUBSCRIBE = SubscribeRequest(channel="a", **WHO)
PUBLISH = PublishRequest(channel="a", data=1, **WHO)
RPC = RpcRequest(method="m", **WHO)
REFRESH = RefreshRequest(**WHO)
SUB_REFRESH = SubRefreshRequest(channel="a", **WHO)
NOW_S = 1000.0


def test_connect_makes_claims() -> None:
    """As a token would, for as long as is left."""
    answer = AllowConnect(
        user="ann",
        info={"n": 1},
        meta=[2],
        data={"hello": "é\n"},
        expire_at_s=1060,
        channels=["a", "b"],
        subs={"b": AllowSubscribe(info=3, data=4, expire_at_s=1030, override={"presence": True})},
    )
    b = Grant(info=3, data=Raw(b"4"), override={"presence": True}, ttl_s=30, by_function=True)
    assert ruling_of(CONNECT, answer, NOW_S) == Claims(
        user="ann",
        ttl_s=60,
        info={"n": 1},
        meta=[2],
        channels={"a": Grant(), "b": b},
        data=Raw('{"hello":"é\\n"}'.encode()),
        by_function=True,
    )


def test_least_answers() -> None:
    """Everything may be left out."""
    assert ruling_of(CONNECT, AllowConnect(), NOW_S) == Claims(by_function=True)
    assert ruling_of(SUBSCRIBE, AllowSubscribe(), NOW_S) == Grant(by_function=True)
    assert ruling_of(PUBLISH, AllowPublish(), NOW_S) == Publishable(None)
    # The very object: a field is left out only where it has its default itself.
    result = ruling_of(RPC, AllowRpc(), NOW_S)
    assert isinstance(result, RpcResult)
    assert result.data is EMPTY


def test_publish_may_give_null() -> None:
    """None is a value; to leave it out is to change nothing."""
    assert ruling_of(PUBLISH, AllowPublish(data=None), NOW_S) == Publishable(b"null")
    assert ruling_of(PUBLISH, AllowPublish(data={"a": 1}), NOW_S) == Publishable(b'{"a":1}')


def test_refresh_changes_what_is_given() -> None:
    """None is a value; what is left out stays as it was, but the time: there is none then."""
    refresh = AllowRefresh(expire_at_s=1060, info={"n": 1}, meta=None)
    assert ruling_of(REFRESH, refresh, NOW_S) == Prolonged(
        {"ttl_s": 60, "info": {"n": 1}, "meta": None}
    )
    assert ruling_of(REFRESH, AllowRefresh(), NOW_S) == Prolonged({"ttl_s": None})
    sub = AllowSubRefresh(expire_at_s=1060, info=1)
    assert ruling_of(SUB_REFRESH, sub, NOW_S) == Prolonged({"ttl_s": 60, "info": 1})
    assert ruling_of(SUB_REFRESH, AllowSubRefresh(), NOW_S) == Prolonged({"ttl_s": None})


def test_nothing_is_shared_with_the_users_code() -> None:
    """What it keeps, it may change afterwards."""
    info: dict[str, Any] = {"n": 1}
    ruling = ruling_of(CONNECT, AllowConnect(info=info, meta=info), NOW_S)
    info["n"] = 2
    assert isinstance(ruling, Claims)
    assert (ruling.info, ruling.meta) == ({"n": 1}, {"n": 1})


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (CONNECT, AllowConnect(expire_at_s=1000)),
        (CONNECT, AllowConnect(subs={"a": AllowSubscribe(expire_at_s=1)})),
        (SUBSCRIBE, AllowSubscribe(expire_at_s=0)),
        (REFRESH, AllowRefresh(expire_at_s=1000)),
        (SUB_REFRESH, AllowSubRefresh(expire_at_s=999)),
    ],
)
def test_what_is_over_already_is_expired(request_: Request, answer: object) -> None:
    """Error 110."""
    assert ruling_of(request_, answer, NOW_S) is ErrorCode.EXPIRED


@pytest.mark.parametrize("request_", [CONNECT, SUBSCRIBE, PUBLISH, RPC, REFRESH, SUB_REFRESH])
def test_every_question_may_be_refused(request_: Request) -> None:
    """By an error, or an end of the connection."""
    for answer, ruling in [
        (Deny(), OwnError(103, "permission denied", temporary=False)),
        (Deny(100), OwnError(100, "internal server error", temporary=True)),
        (Deny(403, "no"), OwnError(403, "no", temporary=False)),
        (Deny(500, temporary=True), OwnError(500, "denied", temporary=True)),
        (Disconnect(4500, "go"), Close(4500, "go")),
    ]:
        assert ruling_of(request_, answer, NOW_S) == ruling


@pytest.mark.parametrize("code", [0, 99, 114, 399, 2000, 3500])
def test_deny_takes_error_codes_only(code: int) -> None:
    """The error is raised in the user's own line."""
    with pytest.raises(ValueError, match=f"{code} is no error code"):
        Deny(code)


@pytest.mark.parametrize("code", [103, 2999, 5000])
def test_disconnect_takes_close_codes_only(code: int) -> None:
    """As above."""
    with pytest.raises(ValueError, match=f"{code} is no close code"):
        Disconnect(code)


@pytest.mark.parametrize("kind", [Deny, Disconnect])
@pytest.mark.parametrize(
    ("code", "reason"),
    [(4000.0, "x"), (403.0, "x"), (True, "x"), ("403", "x"), (None, "x"), (4000, None), (403, 7)],
)
def test_refusals_take_a_number_and_a_text(kind: Any, code: object, reason: object) -> None:
    """Anything else is told in the user's own line, too, not when the client is to be told."""
    with pytest.raises((TypeError, ValueError)):
        kind(code, reason)


def test_refusals_take_what_can_be_sent() -> None:
    """Half a surrogate pair has no UTF-8; whether to try again is yes, no or nothing."""
    with pytest.raises(UnicodeEncodeError):
        Disconnect(4000, "\ud800")
    with pytest.raises(UnicodeEncodeError):
        Deny(403, "\ud800")
    with pytest.raises(TypeError, match="temporary is of type str"):
        Deny(403, "x", temporary="yes")  # type: ignore[arg-type]


async def forgotten() -> None:
    """A coroutine."""


@pytest.mark.parametrize(
    ("request_", "answer", "told"),
    [
        (CONNECT, None, "returned None: return AllowConnect, Deny or Disconnect"),
        (CONNECT, True, "an object of type bool"),
        (SUBSCRIBE, AllowPublish(), "an object of type AllowPublish"),
        (RPC, {"a": 1}, "return AllowRpc"),
        (CONNECT, AllowConnect(user=5), "AllowConnect.user"),  # type: ignore[arg-type]
        (CONNECT, AllowConnect(user="\ud800"), "surrogates not allowed"),
        (CONNECT, AllowConnect(channels="news"), "AllowConnect.channels"),
        (CONNECT, AllowConnect(channels=[5]), "a channel is of type int"),  # type: ignore[list-item]
        (CONNECT, AllowConnect(channels=[""]), "channel is empty"),
        (CONNECT, AllowConnect(channels=["a b"]), "channel has characters"),
        (CONNECT, AllowConnect(subs={"": AllowSubscribe()}), "channel is empty"),
        (CONNECT, AllowConnect(expire_at_s=math.nan), "expire_at_s"),
        (SUBSCRIBE, AllowSubscribe(override={"presense": True}), "there is no 'presense'"),
        (RPC, AllowRpc(object()), "object"),
        (REFRESH, AllowSubRefresh(), "return AllowRefresh"),
        (SUB_REFRESH, AllowRefresh(), "return AllowSubRefresh"),
    ],
)
def test_what_is_no_answer_is_an_error(request_: Request, answer: object, told: str) -> None:
    """It says what was expected."""
    with pytest.raises((TypeError, ValueError, MessageError), match=told):
        ruling_of(request_, answer, NOW_S)


def test_coroutine_that_nobody_awaits_is_told_as_such() -> None:
    """A plain function that returns one; it is closed, so nothing warns."""
    with pytest.raises(TypeError, match="declare it with async def"):
        ruling_of(RPC, forgotten(), NOW_S)

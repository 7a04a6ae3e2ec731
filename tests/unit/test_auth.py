"""Tokens, keys, origins and permissions."""

import itertools
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from actors.settings import AuthSettings, ChannelSettings, ClientSettings, Settings
from serve.auth import Access, Operation, api_key_matches, make_token, origin_allowed
from serve.protocol import CommandError, DisconnectCode, DisconnectError, ErrorCode

SECRET = "a secret that is long enough for every HMAC there is: 64 bytes and more"
NOW_S = 1_800_000_000.0


def access(**client: Any) -> Access:
    """Make an access with the secret, at a fixed time."""
    return Access(
        Settings(
            client=ClientSettings(**client),
            auth=AuthSettings(token_secret=SecretStr(SECRET)),
            namespaces={"n": ChannelSettings()},
        ),
        wall=lambda: NOW_S,
    )


def token(payload: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    """Sign any claims."""
    return jwt.encode(payload, secret, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_token_says_who_the_client_is(algorithm: str) -> None:
    """What `make_token` signs comes back, with the time that is left."""
    made = make_token(
        SECRET,
        "mary",
        now_s=NOW_S,
        ttl_s=60,
        info={"name": "Mary"},
        channels=["n:a"],
        algorithm=algorithm,
    )
    claims = access().claims(made)
    assert (claims.user, claims.ttl_s, claims.info) == ("mary", 60, {"name": "Mary"})
    assert dict(claims.channels) == {"n:a": None}


def test_subs_claim_gives_channels_with_info() -> None:
    """`subs` names channels with what others see of the client there."""
    claims = access().claims(token({"sub": "u", "channels": ["a"], "subs": {"b": {"info": 1}}}))
    assert dict(claims.channels) == {"a": None, "b": 1}


def test_token_without_user_is_anonymous() -> None:
    """A token without `sub` is valid, and its user is nobody."""
    assert access().claims(token({})).user == ""


@pytest.mark.parametrize("claims", [{"exp": NOW_S}, {"exp": NOW_S - 1}, {"nbf": NOW_S + 1}])
def test_token_out_of_its_time_is_expired(claims: dict[str, Any]) -> None:
    """Past `exp`, or before `nbf`: error 109, after which clients bring a new token."""
    with pytest.raises(CommandError) as caught:
        access().claims(token(claims))
    assert caught.value.code is ErrorCode.TOKEN_EXPIRED
    assert access(insecure=True).claims(token(claims)).ttl_s is None


@pytest.mark.parametrize(
    "bad",
    [
        "x",
        "a.b.c",
        "ü",
        token({"sub": "u"}, secret="another secret that is long enough, too, for HMACs"),
        token({"sub": 7}),
        token({"sub": "u", "channel": "c"}),
        token({"sub": "u", "exp": "soon"}),
        token({"sub": "u", "channels": "c"}),
        jwt.encode({"sub": "u"}, "", algorithm="none"),
    ],
)
def test_bad_token_ends_the_connection(bad: str) -> None:
    """What is malformed, wrongly signed, or not a connection token: 3500, do not come back."""
    with pytest.raises(DisconnectError) as caught:
        access().claims(bad)
    assert caught.value.code is DisconnectCode.INVALID_TOKEN


def test_audience_and_times_of_issue_are_not_checked() -> None:
    """`aud`, `iss` and `iat` hold only where they are configured, which they cannot be."""
    claims = {"sub": "u", "aud": "other", "iss": "other", "iat": NOW_S + 1000}
    assert access().claims(token(claims)).user == "u"


def test_without_a_secret_no_token_is_valid() -> None:
    """An empty secret must not make every token signed with nothing valid."""
    with pytest.raises(DisconnectError) as caught:
        Access(Settings()).claims(token({"sub": "u"}))
    assert caught.value.code is DisconnectCode.INVALID_TOKEN


def test_nobody_connects_without_a_token_unless_allowed() -> None:
    """No token: 3501, or an anonymous client."""
    with pytest.raises(DisconnectError) as caught:
        access().claims("")
    assert caught.value.code is DisconnectCode.BAD_REQUEST
    assert access(allow_anonymous=True).claims("").user == ""
    assert access(insecure=True).claims("").user == ""


@pytest.mark.parametrize(
    ("headers", "query", "right"),
    [
        ({"x-api-key": "k"}, {}, True),
        ({"authorization": "apikey k"}, {}, True),
        ({"authorization": "APIKEY  k"}, {}, True),
        ({"authorization": "bearer k"}, {}, False),
        ({}, {"api_key": "k"}, True),
        ({}, {}, False),
        ({"x-api-key": ""}, {"api_key": "k"}, False),
        ({"x-api-key": "wrong", "authorization": "apikey k"}, {}, False),
        ({"x-api-key": "ключ"}, {}, False),
    ],
)
def test_api_key(headers: dict[str, str], query: dict[str, str], right: bool) -> None:
    """The first place that has a key decides."""
    assert api_key_matches(headers, query, "k") is right
    assert api_key_matches(headers, query, "") is False


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "passes"),
    [
        (None, "h", (), True),
        ("http://h:8000", "h:8000", (), True),
        ("HTTP://H:8000", "h:8000", (), True),
        ("http://h:8001", "h:8000", (), False),
        ("https://evil.example", "h", (), False),
        ("https://a.example", "h", ("https://a.example",), True),
        ("https://b.a.example", "h", ("https://*.a.example",), True),
        ("https://evil.example", "h", ("*",), True),
        ("null", "h", (), False),
        ("", "", (), False),
        ("http://[", "h", (), False),
    ],
)
def test_origin(origin: str | None, host: str, allowed: tuple[str, ...], passes: bool) -> None:
    """Pages of the same host pass, others only where they are allowed."""
    assert origin_allowed(origin, host, allowed) is passes


def test_channel_names_are_checked() -> None:
    """Empty ends the connection, too long is a bad request, an unknown namespace unknown."""
    with pytest.raises(DisconnectError):
        access().options("")
    for name, code in [
        ("x" * 256, ErrorCode.BAD_REQUEST),
        ("a b", ErrorCode.BAD_REQUEST),
        ("n:ü", ErrorCode.BAD_REQUEST),
        ("m:a", ErrorCode.UNKNOWN_CHANNEL),
    ]:
        with pytest.raises(CommandError) as caught:
            access().options(name)
        assert caught.value.code is code
    assert access().options("n:a") == ChannelSettings()


@pytest.mark.parametrize("operation", list(Operation))
def test_permissions_by_namespace(operation: Operation) -> None:
    """For clients, or subscribers; and anonymous ones only where both are allowed."""
    name = operation.value
    for client, subscriber, anonymous in itertools.product((False, True), repeat=3):
        options = ChannelSettings.model_validate(
            {
                f"allow_{name}_for_client": client,
                f"allow_{name}_for_subscriber": subscriber,
                f"allow_{name}_for_anonymous": anonymous,
            }
        )
        for user, subscribed in itertools.product(("", "u"), (False, True)):
            expected = (client or (subscriber and subscribed)) and (user != "" or anonymous)
            assert access().may(operation, options, user, subscribed=subscribed) is expected
            assert access(insecure=True).may(operation, options, user, subscribed=subscribed)


def test_permission_to_subscribe() -> None:
    """Users where allowed, anonymous ones where both are; `$` needs a token of its own."""
    both = ChannelSettings(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
    users = ChannelSettings(allow_subscribe_for_client=True)
    anonymous = ChannelSettings(allow_subscribe_for_anonymous=True)
    may = access().may_subscribe
    assert [may("c", o, "u") for o in (both, users, anonymous)] == [True, True, False]
    assert [may("c", o, "") for o in (both, users, anonymous)] == [True, False, False]
    assert not may("$c", both, "u")
    assert not access(insecure=True).may_subscribe("$c", both, "u")
    assert access(insecure=True).may_subscribe("c", ChannelSettings(), "")

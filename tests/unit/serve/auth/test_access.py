"""Tokens, keys, origins and permissions."""

import itertools
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from actors.errors import SettingsError
from actors.settings.client import ClientSettings
from actors.settings.tree import (
    AuthSettings,
    ChannelSettings,
    Settings,
    SubscriptionTokenSettings,
    TokenSettings,
)
from serve.auth.access import Access, Operation, api_key_matches, origin_allowed, with_keys
from serve.auth.keys import KeysWantedError
from serve.auth.tokens import Grant, TokenError, make_token
from serve.protocol.messages import CommandError, DisconnectCode, DisconnectError, ErrorCode
from tests.signing import key, public_pem

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
    assert list(claims.channels) == ["n:a"]


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


def test_connection_whose_time_is_over_is_refused() -> None:
    """`expire_at` in the past, though the token is good: error 110."""
    with pytest.raises(CommandError) as caught:
        access().claims(token({"exp": NOW_S + 9, "expire_at": NOW_S - 1}))
    assert caught.value.code is ErrorCode.EXPIRED


def grant(claims: dict[str, Any], judge: Access | None = None, **signed: Any) -> Grant:
    """Return what a subscription token gives the client `id` of `u` in `c`."""
    judge = judge or access()
    return judge.grant(token(claims, **signed), "c", user="u", client="id")


def test_subscription_token_gives_what_it_says() -> None:
    """Others see `info`, the client gets `data`, and it lasts as long as the token."""
    found = grant({"sub": "u", "channel": "c", "info": 1, "data": [2], "exp": NOW_S + 9})
    assert (found.info, bytes(found.data), found.ttl_s) == (1, b"[2]", 9)
    assert grant({"sub": "u", "channel": "c", "client": "id"}).ttl_s is None


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "u", "channel": "d"},
        {"sub": "v", "channel": "c"},
        {"channel": "c"},
        {"sub": "u", "channel": "c", "client": "other"},
    ],
)
def test_subscription_token_for_another_ends_the_connection(claims: dict[str, Any]) -> None:
    """Channel, user, and the client where it is named, must be the ones: 3500."""
    with pytest.raises(DisconnectError) as caught:
        grant(claims)
    assert caught.value.code is DisconnectCode.INVALID_TOKEN


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW_S}, ErrorCode.TOKEN_EXPIRED),
        ({"nbf": NOW_S + 1}, ErrorCode.TOKEN_EXPIRED),
        ({"exp": NOW_S + 9, "expire_at": NOW_S}, ErrorCode.EXPIRED),
    ],
)
def test_subscription_token_out_of_its_time(claims: dict[str, Any], code: ErrorCode) -> None:
    """Expired or not valid yet: 109. What it is for is over: 110."""
    with pytest.raises(CommandError) as caught:
        grant({"sub": "u", "channel": "c", **claims})
    assert caught.value.code is code
    assert grant({"sub": "u", "channel": "c", **claims}, access(insecure=True)).ttl_s is None


def test_subscription_tokens_may_have_their_own_keys() -> None:
    """Where that is on, the other section's keys are not good for them, nor the reverse."""
    own_secret = "s" * 64
    judge = Access(
        Settings(
            auth=AuthSettings(
                token_secret=SecretStr(SECRET),
                subscription_tokens=SubscriptionTokenSettings(
                    enabled=True, secret=SecretStr(own_secret)
                ),
            )
        ),
        wall=lambda: NOW_S,
    )
    claims = {"sub": "u", "channel": "c"}
    assert grant(claims, judge, secret=own_secret) == Grant()
    with pytest.raises(TokenError):
        grant(claims, judge)
    with pytest.raises(DisconnectError):
        judge.claims(token({"sub": "u"}, secret=own_secret))
    assert judge.claims(token({"sub": "u"})).user == "u"


def test_token_that_cannot_be_judged_now_is_a_temporary_error() -> None:
    """Error 100, after which clients come back; never that the token is bad."""
    settings = AuthSettings(tokens=TokenSettings(jwks_url="https://keys.example/set"))
    judge = Access(Settings(auth=settings), wall=lambda: NOW_S, clock=lambda: 0.0)
    private = key("ES256")
    made = make_token(private, "u", now_s=NOW_S, algorithm="ES256", kid="k1")
    with pytest.raises(KeysWantedError) as wanted:
        judge.claims(made)
    wanted.value.keys.fail("down")
    with pytest.raises(CommandError) as caught:
        judge.claims(made)
    assert caught.value.code is ErrorCode.INTERNAL_SERVER_ERROR


def test_keys_travel_as_text(tmp_path: Path) -> None:
    """Edges on other machines have no key files: the text takes the place of the name."""
    file = tmp_path / "key.pem"
    file.write_text(public_pem(key("RS256")))
    given = AuthSettings(
        tokens=TokenSettings(public_keys=(str(file),)),
        subscription_tokens=SubscriptionTokenSettings(public_keys=(str(file),)),
    )
    sent = with_keys(given)
    assert sent.tokens.public_keys == sent.subscription_tokens.public_keys == (file.read_text(),)
    file.unlink()
    with pytest.raises(SettingsError, match=r"auth\.tokens\.public_keys"):
        with_keys(given)


def test_audience_and_times_of_issue_are_not_checked() -> None:
    """`aud` and `iss` count only where they are set; `iat` never."""
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
        ("http://[::1]:3000", "h", ("http://[::1]:3000",), True),
        ("http://[::2]:3000", "h", ("http://[::1]:*",), False),
        ("http://:", "h", ("http://[::1]",), False),
        ("https://axb.example", "h", ("https://a?b.example",), False),
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


def test_user_limited_channel_is_for_its_users_alone() -> None:
    """The names after the last `#`, without a token; nobody else, but for `insecure`."""
    limited = ChannelSettings(allow_user_limited_channels=True)
    may = access().may_subscribe
    assert may("#ann", limited, "ann")
    assert may("n:chat#ann,bob", limited, "bob")
    assert not may("chat#ann,bob", limited, "carl")
    assert not may("chat#ann#bob", limited, "ann")
    assert not may("chat#", limited, "")
    assert not may("$chat#ann", limited, "ann")
    open_too = limited.model_copy(update={"allow_subscribe_for_client": True})
    assert not may("chat#ann", open_too, "carl")
    assert access(insecure=True).may_subscribe("chat#ann", limited, "")
    for judge in (access(), access(insecure=True)):
        plain = ChannelSettings(allow_subscribe_for_client=True)
        assert judge.may_subscribe("chat#ann", plain, "carl")
    assert not may("chat", limited, "ann")


def test_personal_channel() -> None:
    """Each user has one, where it is on; a user id that would open it to others has an error."""
    on = access(subscribe_to_user_personal_channel={"enabled": True})
    named = access(subscribe_to_user_personal_channel={"enabled": True, "namespace": "n"})
    assert on.personal_channel("ann") == "#ann"
    assert named.personal_channel("ann") == "n:#ann"
    assert on.personal_channel("") is None
    assert access().personal_channel("ann") is None
    for user in ("ann,bob", "x#bob"):
        with pytest.raises(CommandError):
            on.personal_channel(user)
        assert access().personal_channel(user) is None

"""Client tokens: JSON Web Tokens (RFC 7519) with the claims that Centrifugo reads.

https://centrifugal.dev/docs/server/authentication,
https://centrifugal.dev/docs/server/channel_token_auth. Sans-I/O; reads no clock of its own.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import msgspec
from msgspec import Raw, Struct

from actors.errors import RaywireError
from actors.settings.tree import TokenSettings
from serve.auth.keys import (
    HMAC_ALGORITHMS,
    KeySet,
    NoKeyError,
    PublicKey,
    algorithms_of,
    parse_public_key,
    read_public_key,
)
from serve.protocol.messages import EMPTY


class TokenError(RaywireError):
    """A token is not valid; the text says why, without any of it."""


class TokenExpiredError(TokenError):
    """A token is well signed, but out of its time."""


class _Flag(Struct):
    value: bool = False


class _Override(Struct):
    """Settings of the channel that hold otherwise for this subscription."""

    presence: _Flag | None = None
    join_leave: _Flag | None = None
    force_push_join_leave: _Flag | None = None
    force_positioning: _Flag | None = None
    force_recovery: _Flag | None = None


class _Given(Struct):
    info: Any = None
    b64info: str | None = None
    data: Any = None
    b64data: str | None = None
    override: _Override | None = None


class _Payload(_Given):
    sub: str | None = None
    exp: float | None = None
    nbf: float | None = None
    expire_at: float | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    channels: list[str] | None = None
    subs: dict[str, _Given] | None = None
    meta: Any = None
    channel: str | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives in a channel.

    Attributes:
        info: Shown to others as `chan_info`; any JSON value, None: nothing.
        data: What the client is told with its subscription, as JSON.
        override: Names of the channel's settings that are other for this subscription.
        ttl_s: In how many seconds it expires, may be below 0; None: never, or with the connection.
        by_function: As in `Claims`.
    """

    info: Any = None
    data: Raw = field(default_factory=lambda: EMPTY)
    override: Mapping[str, bool] = field(default_factory=dict)
    ttl_s: float | None = None
    by_function: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of a client.

    Attributes:
        user: Its user id; empty: anonymous.
        ttl_s: In how many seconds the connection expires, may be below 0; None: never.
        info: Shown to others as `conn_info`; any JSON value, None: nothing.
        channels: Subscriptions that the server makes.
        meta: Any JSON value, which clients never see.
        channel: Of a subscription token, the channel that it is for; None: it is for connecting.
        client: Of a subscription token, the only client that may use it; empty: any.
        grant: Of a subscription token, what it gives.
        data: What the client is told when it connects, as JSON.
        by_function: A function of the user's has said so. The client is not told when it expires,
            and cannot prolong it: it comes again, and the function is asked again.
    """

    user: str = ""
    ttl_s: float | None = None
    info: Any = None
    channels: Mapping[str, Grant] = field(default_factory=dict)
    meta: Any = None
    channel: str | None = None
    client: str = ""
    grant: Grant = field(default_factory=Grant)
    data: Raw = field(default_factory=lambda: EMPTY)
    by_function: bool = False


class Verifier:
    """Judge tokens by one section of the settings.

    Args:
        settings: The public keys, and what else must hold.
        secret: The HMAC secret; empty: there is none.
        section: Name of the section, for errors.
        wall: Seconds since the epoch.
        clock: Monotonic seconds.

    Raises:
        SettingsError: A public key cannot be used.
    """

    def __init__(
        self,
        settings: TokenSettings,
        secret: str,
        section: str,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.keys = KeySet(settings.jwks_url, clock) if settings.jwks_url else None
        self._settings = settings
        self._secret = secret
        self._wall = wall
        where = f"{section}.public_keys"
        self._public = [
            parse_public_key(read_public_key(given, where), where) for given in settings.public_keys
        ]

    def claims(self, token: str, *, timeless: bool = False) -> Claims:
        """Return what a token says, of either kind.

        Args:
            token: The token.
            timeless: Its times are not looked at, and it never expires.

        Raises:
            TokenExpiredError: It has expired, or is not valid yet.
            TokenError: It is not valid.
            KeysWantedError: See `KeySet.find`; the same for `UnavailableError`.
        """
        payload = self._payload(token)
        self._check_purpose(payload)
        ttl_s = None
        if not timeless:
            now_s = self._wall()
            if payload.nbf is not None and payload.nbf > now_s:
                raise TokenExpiredError("its time has not come yet (nbf)")
            if payload.exp is not None and payload.exp <= now_s:
                raise TokenExpiredError("it has expired (exp)")
            ttl_s = _ttl_s(payload, now_s)
        return _claims(payload, ttl_s)

    def _payload(self, token: str) -> _Payload:
        text = self._verified(token)
        try:
            return msgspec.json.decode(text, type=_Payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TokenError(f"its claims are not as they should be: {error}") from error

    def _verified(self, token: str) -> bytes:
        """Return the payload of a token that one of our keys has signed."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise TokenError(f"it is no JSON Web Token: {error}") from error
        algorithm, kid = str(header.get("alg")), str(header.get("kid") or "")
        keys = self._candidates(algorithm)
        for key in keys:
            if (found := _decode(token, key, algorithm)) is not None:
                return found
        if self.keys is None or (not kid and keys) or algorithm in HMAC_ALGORITHMS:
            raise TokenError(
                "its signature is wrong" if keys else f"no key for {algorithm} is configured"
            )
        return self._verified_by_set(self.keys, token, algorithm, kid)

    def _candidates(self, algorithm: str) -> Sequence[PublicKey | str]:
        if algorithm in HMAC_ALGORITHMS:
            return [self._secret] if self._secret else []
        return [key for key in self._public if algorithm in algorithms_of(key)]

    @staticmethod
    def _verified_by_set(keys: KeySet, token: str, algorithm: str, kid: str) -> bytes:
        try:
            key = keys.find(kid)
        except NoKeyError as error:
            raise TokenError(str(error)) from error
        if algorithm not in algorithms_of(key):
            raise TokenError(f"key {kid!r} is not for {algorithm}")
        found = _decode(token, key, algorithm)
        if found is None:
            raise TokenError("its signature is wrong")
        return found

    def _check_purpose(self, payload: _Payload) -> None:
        audience, issuer = self._settings.audience, self._settings.issuer
        meant = [payload.aud] if isinstance(payload.aud, str) else payload.aud or []
        if audience is not None and audience not in meant:
            raise TokenError("it is for another audience (aud)")
        if issuer is not None and payload.iss != issuer:
            raise TokenError("it is of another issuer (iss)")


def _decode(token: str, key: PublicKey | str, algorithm: str) -> bytes | None:
    """Return the payload; None: the signature is not of this key."""
    try:
        payload: bytes = jwt.api_jws.decode(token, key, algorithms=[algorithm])
    except jwt.InvalidSignatureError:
        return None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise TokenError(f"it cannot be verified: {error}") from error
    return payload


def _ttl_s(payload: _Payload, now_s: float) -> float | None:
    """Return when what the token was for expires: `expire_at` before `exp`, and 0 is never."""
    at_s = payload.exp if payload.expire_at is None else payload.expire_at or None
    return None if at_s is None else at_s - now_s


def _claims(payload: _Payload, ttl_s: float | None) -> Claims:
    channels = {channel: Grant() for channel in payload.channels or ()}
    channels.update({name: _grant(given) for name, given in (payload.subs or {}).items()})
    return Claims(
        user=payload.sub or "",
        ttl_s=ttl_s,
        info=_json(payload.info, payload.b64info, "b64info"),
        channels=channels,
        meta=payload.meta,
        channel=payload.channel,
        client=payload.client or "",
        grant=_grant(payload, ttl_s),
    )


def _grant(given: _Given, ttl_s: float | None = None) -> Grant:
    data = _json(given.data, given.b64data, "b64data")
    asked = {} if given.override is None else msgspec.structs.asdict(given.override)
    return Grant(
        info=_json(given.info, given.b64info, "b64info"),
        # Encoded anew: raw newlines between its parts would end the message.
        data=EMPTY if data is None else Raw(msgspec.json.encode(data)),
        override={name: flag.value for name, flag in asked.items() if flag is not None},
        ttl_s=ttl_s,
    )


def _json(plain: Any, encoded: str | None, claim: str) -> Any:
    """Return the value of a claim that may be given in base64, too; that form wins."""
    if not encoded:
        return plain
    try:
        return msgspec.json.decode(base64.b64decode(encoded, validate=True))
    except (ValueError, RecursionError) as error:  # Neither base64, nor ASCII, nor UTF-8, nor JSON.
        raise TokenError(f"{claim} is not JSON in base64") from error


def make_token(
    key: Any,
    user: str,
    *,
    now_s: float,
    ttl_s: float | None = None,
    info: Any = None,
    channels: Sequence[str] = (),
    channel: str | None = None,
    algorithm: str = "HS256",
    kid: str = "",
    more: Mapping[str, Any] | None = None,
) -> str:
    """Make a client token.

    Args:
        key: The HMAC secret (`settings.auth.token_secret`), or a private key.
        user: User id; empty: anonymous.
        now_s: Seconds since the epoch.
        ttl_s: How long it is valid; None: for ever.
        info: Any JSON value, shown to others.
        channels: What the server subscribes the client to.
        channel: Make a subscription token, for this channel. None: one for connecting.
        algorithm: One that fits the key.
        kid: Name of the key in a key set; empty: none.
        more: Further claims; they win.
    """
    payload: dict[str, Any] = {"sub": user, "iat": int(now_s)}
    if ttl_s is not None:
        payload["exp"] = int(now_s + ttl_s)
    if info is not None:
        payload["info"] = info
    if channels:
        payload["channels"] = list(channels)
    if channel is not None:
        payload["channel"] = channel
    payload.update(more or {})
    headers = {"kid": kid} if kid else None
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers)


ALGORITHMS: Final = (
    *HMAC_ALGORITHMS,
    *("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"),
)
"""All that tokens may be signed with."""

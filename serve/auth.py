"""Who may do what: client tokens, API keys, origins, and permissions by namespace.

Tokens are JSON Web Tokens (RFC 7519) with the claims that Centrifugo reads
(https://centrifugal.dev/docs/server/authentication).
"""

import enum
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec
from msgspec import Struct

from actors.errors import MessageError
from actors.message import CHANNEL_LENGTH_MAX, check_channel
from actors.settings import ChannelSettings, Settings
from serve.protocol import CommandError, DisconnectCode, DisconnectError, ErrorCode

ALGORITHMS: Final = ("HS256", "HS384", "HS512")


class Operation(enum.Enum):
    """What a client may want to do in a channel besides subscribing."""

    PUBLISH = "publish"
    HISTORY = "history"
    PRESENCE = "presence"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of a client.

    Attributes:
        user: Its user id; empty: anonymous.
        ttl_s: In how many seconds the token expires; None: never.
        info: Shown to others as `conn_info`; any JSON value, None: nothing.
        channels: Channel -> its `chan_info`: subscriptions that the server makes.
    """

    user: str = ""
    ttl_s: float | None = None
    info: Any = None
    channels: Mapping[str, Any] = field(default_factory=dict)


class _SubClaim(Struct):
    info: Any = None


class _Payload(Struct):
    sub: str = ""
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None
    info: Any = None
    channels: list[str] | None = None
    subs: dict[str, _SubClaim] | None = None
    channel: str | None = None


def make_token(
    secret: str,
    user: str,
    *,
    now_s: float,
    ttl_s: float | None = None,
    info: Any = None,
    channels: Sequence[str] = (),
    algorithm: str = "HS256",
) -> str:
    """Make a client token.

    Args:
        secret: The HMAC secret; `settings.auth.token_secret`.
        user: User id; empty: anonymous.
        now_s: Seconds since the epoch.
        ttl_s: How long it is valid; None: for ever.
        info: Any JSON value, shown to others.
        channels: What the server subscribes the client to.
        algorithm: One of `ALGORITHMS`.
    """
    payload: dict[str, Any] = {"sub": user, "iat": int(now_s)}
    if ttl_s is not None:
        payload["exp"] = int(now_s + ttl_s)
    if info is not None:
        payload["info"] = info
    if channels:
        payload["channels"] = list(channels)
    return jwt.encode(payload, secret, algorithm=algorithm)


class Access:
    """Answer what clients may do, by settings and tokens.

    Args:
        settings: The whole tree: channels, client and auth are read.
        wall: Seconds since the epoch, for tokens' times.
    """

    def __init__(self, settings: Settings, wall: Callable[[], float] = time.time) -> None:
        self.client = settings.client
        self._settings = settings
        self._wall = wall
        secret = settings.auth.token_secret
        self._secret = secret.get_secret_value() if secret is not None else ""

    def claims(self, token: str) -> Claims:
        """Return what is known of whoever connects with a token, or with none (empty).

        Raises:
            DisconnectError: The token is not valid, or there has to be one.
            CommandError: The token has expired, or is not valid yet.
        """
        if token:
            return self._verify(token)
        if self.client.insecure or self.client.allow_anonymous:
            return Claims()
        raise DisconnectError(DisconnectCode.BAD_REQUEST)

    def _verify(self, token: str) -> Claims:
        payload = self._payload(token)
        now_s = self._wall()
        ttl_s = None
        if not self.client.insecure:
            early = payload.nbf is not None and payload.nbf > now_s
            if early or (payload.exp is not None and payload.exp <= now_s):
                raise CommandError(ErrorCode.TOKEN_EXPIRED)
            ttl_s = None if payload.exp is None else payload.exp - now_s
        channels: dict[str, Any] = dict.fromkeys(payload.channels or ())
        channels.update({name: sub.info for name, sub in (payload.subs or {}).items()})
        return Claims(payload.sub, ttl_s, payload.info, channels)

    def _payload(self, token: str) -> _Payload:
        if not self._secret:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        # Times are checked by `_verify`: PyJWT would read the clock itself.
        options: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss")}
        try:
            found = jwt.decode(token, self._secret, algorithms=list(ALGORITHMS), options=options)
            payload = msgspec.convert(found, _Payload)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as error:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN) from error
        if payload.channel is not None:  # A subscription token is not for connecting.
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        return payload

    def options(self, channel: str) -> ChannelSettings:
        """Return the settings of a channel.

        Raises:
            DisconnectError: The name is empty.
            CommandError: The name breaks the rules, or its namespace is unknown.
        """
        if not channel:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        if len(channel) > CHANNEL_LENGTH_MAX:
            raise CommandError(ErrorCode.BAD_REQUEST)
        options = self._settings.channel_settings(channel)
        if options is None:
            raise CommandError(ErrorCode.UNKNOWN_CHANNEL)
        try:
            check_channel(channel)
        except MessageError as error:
            raise CommandError(ErrorCode.BAD_REQUEST) from error
        return options

    def may_subscribe(self, channel: str, options: ChannelSettings, user: str) -> bool:
        """Tell whether a client may subscribe without a token; never to `$` channels.

        https://centrifugal.dev/docs/server/channel_permissions
        """
        if channel.startswith("$"):
            return False
        known = bool(user) or options.allow_subscribe_for_anonymous
        return self.client.insecure or (options.allow_subscribe_for_client and known)

    def may(
        self, operation: Operation, options: ChannelSettings, user: str, *, subscribed: bool
    ) -> bool:
        """Tell whether a client may do something in a channel.

        https://centrifugal.dev/docs/server/channel_permissions
        """
        if self.client.insecure:
            return True
        for_client, for_subscriber, for_anonymous = _PERMISSIONS[operation](options)
        return (for_client or (for_subscriber and subscribed)) and (bool(user) or for_anonymous)


_PERMISSIONS: Final[dict[Operation, Callable[[ChannelSettings], tuple[bool, bool, bool]]]] = {
    Operation.PUBLISH: lambda o: (
        o.allow_publish_for_client,
        o.allow_publish_for_subscriber,
        o.allow_publish_for_anonymous,
    ),
    Operation.HISTORY: lambda o: (
        o.allow_history_for_client,
        o.allow_history_for_subscriber,
        o.allow_history_for_anonymous,
    ),
    Operation.PRESENCE: lambda o: (
        o.allow_presence_for_client,
        o.allow_presence_for_subscriber,
        o.allow_presence_for_anonymous,
    ),
}


def api_key_matches(headers: Mapping[str, str], query: Mapping[str, str], key: str) -> bool:
    """Tell whether a request to the server API carries the key. Takes the same time for all.

    `X-API-Key` counts before `Authorization: apikey <key>`, and `?api_key=` where neither is.
    https://centrifugal.dev/docs/server/server_api#http-api-authorization

    Args:
        headers: Names in lower case, or compared without regard to case.
        query: Query parameters.
        key: The right one. Empty: nothing matches.
    """
    given = headers.get("x-api-key")
    if given is None:
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        given = rest.strip() if scheme.lower() == "apikey" else None
    if given is None:
        given = query.get("api_key", "")
    return bool(key) and hmac.compare_digest(given.encode(), key.encode())


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Tell whether a page of this origin may connect.

    No origin (not a browser) passes, and so does the page's own host. Otherwise the origin must
    match one of `allowed`, in which `*` stands for any text. RFC 6455, section 10.2.
    """
    if origin is None:
        return True
    lower = origin.lower()
    try:
        own = host is not None and urlsplit(lower).netloc == host.lower() != ""
    except ValueError:
        return False
    return own or any(fnmatchcase(lower, pattern.lower()) for pattern in allowed)

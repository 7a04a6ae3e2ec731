"""Who may do what: client tokens, API keys, origins, and permissions by namespace."""

import enum
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from actors.errors import MessageError, UnavailableError
from actors.message import check_channel
from actors.settings.tree import AuthSettings, ChannelSettings, Settings, TokenSettings
from serve.auth.keys import read_public_key
from serve.auth.tokens import Claims, Grant, TokenError, TokenExpiredError, Verifier
from serve.protocol.messages import CommandError, DisconnectCode, DisconnectError, ErrorCode

_SPECIAL: Final = re.compile(r"[?[]")


class Operation(enum.Enum):
    """What a client may want to do in a channel besides subscribing."""

    PUBLISH = "publish"
    HISTORY = "history"
    PRESENCE = "presence"


class Access:
    """Answer what clients may do, by settings and tokens.

    Args:
        settings: The whole tree: channels, client and auth are read.
        wall: Seconds since the epoch, for tokens' times.
        clock: Monotonic seconds, for the age of keys that are read from elsewhere.

    Raises:
        SettingsError: A public key cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = settings.client
        self.functions = settings.authorise
        self._settings = settings
        self._verifier, self._channel_verifier = verifiers(settings.auth, wall, clock)

    def claims(self, token: str) -> Claims:
        """Return what is known of whoever connects with a token, or with none (empty).

        Raises:
            DisconnectError: The token is not valid, or there has to be one.
            CommandError: The token has expired, is not valid yet, or cannot be judged now.
            KeysWantedError: See `KeySet.find`.
        """
        if not token:
            if self.client.insecure or self.client.allow_anonymous:
                return Claims()
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        try:
            claims = self._judged(self._verifier, token)
        except TokenError as error:
            raise DisconnectError(DisconnectCode.INVALID_TOKEN) from error
        if claims.channel is not None:  # A subscription token is not for connecting.
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        if claims.ttl_s is not None and claims.ttl_s <= 0:
            raise CommandError(ErrorCode.EXPIRED)
        return claims

    def grant(self, token: str, channel: str, *, user: str, client: str) -> Grant:
        """Return what a subscription token gives.

        Raises:
            DisconnectError: It is for another channel, user or client.
            TokenError: It is not valid, or not for subscribing.
            CommandError: It has expired, is not valid yet, or cannot be judged now.
            KeysWantedError: See `KeySet.find`.
        """
        claims = self._judged(self._channel_verifier, token)
        if claims.channel is None:
            raise TokenError("it is not for a channel (channel)")
        if (claims.channel, claims.user) != (channel, user) or claims.client not in ("", client):
            raise DisconnectError(DisconnectCode.INVALID_TOKEN)
        if claims.ttl_s is not None and claims.ttl_s <= 0:
            raise CommandError(ErrorCode.EXPIRED)
        return claims.grant

    def _judged(self, verifier: Verifier, token: str) -> Claims:
        try:
            return verifier.claims(token, timeless=self.client.insecure)
        except TokenExpiredError as error:
            raise CommandError(ErrorCode.TOKEN_EXPIRED) from error
        except UnavailableError as error:
            # Temporary: the client comes back, and must not be told that its token is bad.
            raise CommandError(ErrorCode.INTERNAL_SERVER_ERROR) from error

    def personal_channel(self, user: str) -> str | None:
        """Return the channel of a user's own that the server subscribes it to, if there is one.

        https://centrifugal.dev/docs/server/server_subs#automatic-personal-channel-subscription

        Raises:
            CommandError: The user's id would make it the channel of others, too.
        """
        wanted = self.client.subscribe_to_user_personal_channel
        if not wanted.enabled or not user:
            return None
        if "," in user or "#" in user:  # `#ann,bob` is for ann and for bob, `#a#bob` for bob.
            raise CommandError(ErrorCode.BAD_REQUEST)
        return f"{wanted.namespace}:#{user}" if wanted.namespace else f"#{user}"

    def options(self, channel: str) -> ChannelSettings:
        """Return the settings of a channel.

        Raises:
            DisconnectError: The name is empty.
            CommandError: The name breaks the rules, or its namespace is unknown.
        """
        if not channel:
            raise DisconnectError(DisconnectCode.BAD_REQUEST)
        if len(channel) > self.client.channel_length_max:
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
        """Tell whether a client may subscribe without a token, nobody being asked.

        Never to `$` channels, nor where a function of the user's decides.

        A channel limited to some users is for those alone, whatever else the namespace allows.
        https://centrifugal.dev/docs/server/channel_permissions
        """
        if channel.startswith("$"):
            return False
        _, limited, users = channel.rpartition("#")
        if limited and options.allow_user_limited_channels:
            return self.client.insecure or (bool(user) and user in users.split(","))
        if options.authorise_subscribe:
            return False
        known = bool(user) or options.allow_subscribe_for_anonymous
        return self.client.insecure or (options.allow_subscribe_for_client and known)

    def asks_subscribe(self, channel: str, options: ChannelSettings) -> bool:
        """Tell whether the user's function decides who may subscribe without a token."""
        limited = "#" in channel and options.allow_user_limited_channels
        return options.authorise_subscribe and not limited and not channel.startswith("$")

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


def verifiers(
    auth: AuthSettings, wall: Callable[[], float], clock: Callable[[], float]
) -> tuple[Verifier, Verifier]:
    """Return who judges tokens for connecting, and subscription tokens; may be the same.

    Raises:
        SettingsError: A public key cannot be used.
    """
    connect = Verifier(auth.tokens, _text(auth.token_secret), "auth.tokens", wall=wall, clock=clock)
    own = auth.subscription_tokens
    if not own.enabled:
        return connect, connect
    section = "auth.subscription_tokens"
    return connect, Verifier(own, _text(own.secret), section, wall=wall, clock=clock)


def with_keys(auth: AuthSettings) -> AuthSettings:
    """Return the settings with the text of public keys in place of files' names.

    For processes on other machines, which have no such files.

    Raises:
        SettingsError: A file cannot be read, or holds no key.
    """
    update = {}
    for name in ("tokens", "subscription_tokens"):
        part: TokenSettings = getattr(auth, name)
        where = f"auth.{name}.public_keys"
        keys = tuple(read_public_key(given, where) for given in part.public_keys)
        update[name] = part.model_copy(update={"public_keys": keys})
    return auth.model_copy(update=update)


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


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
    return own or any(fnmatchcase(lower, _only_stars(pattern.lower())) for pattern in allowed)


def _only_stars(pattern: str) -> str:
    """Escape what else is special: an IPv6 address has brackets."""
    return _SPECIAL.sub(r"[\g<0>]", pattern)

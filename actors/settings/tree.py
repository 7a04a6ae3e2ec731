"""All settings, as one frozen tree. The file and the environment are read in `file` only.

Durations are float seconds and end in `_s`; limits end in `_max`; zero means zero.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from actors.settings.authorise import AuthoriseSettings
from actors.settings.client import ClientSettings
from actors.settings.part import COUNT_MAX, TTL_MAX_S, Count, Limit, Number, Seconds, check_path
from actors.settings.part import Part as _Part
from actors.settings.resources import Amount, GpuAmount, Resources
from actors.settings.servers import RaySettings, RedisSettings

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_NAMESPACE = re.compile(r"[!-#%-9;-~][!-9;-~]*")
"""What can stand before the first `:` of a channel's name, behind the `$` that it may begin with;
see `actors.message.check_channel`."""


class QueueSettings(_Part):
    """The durable queue that producers write to."""

    partitions: Annotated[int, Field(ge=1, le=1024, strict=True)] = 8
    """The units of order and ownership. Fixed for the life of the data."""
    entries_max: Count = 200_000
    """Entries of one partition that may wait. When full, the API answers 429 (error 111)."""
    message_bytes_max: Annotated[int, Field(ge=64, le=16 * 2**20, strict=True)] = 65_536
    """Size of one message's data. Larger ones are refused (error 107)."""


class NozzleSettings(_Part):
    """The actors that read the queue. Each owns its share of the partitions."""

    count: Count = 1
    """How many nozzles there are, each with a publisher of its own; at most `queue.partitions`."""
    pace_s: Annotated[Number, Field(ge=0, le=1)] = 0.007
    """The shortest time between two batches: under load, batches grow instead of their number."""
    window: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """Batches that may be under way; when full, the nozzle waits and the queue grows. Unset: two
    more than the largest stage has transformers. More do not wait in the queue but on the way."""
    batch_max: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 400
    """Entries of one partition in one batch."""
    block_s: Annotated[Number, Field(ge=0.001, le=60)] = 1.0
    """How long one read waits for entries."""
    crashes_max: Count = 2
    """How often an entry, alone in its batch, may end its transformer's process before it becomes a
    dead letter."""


class TransformSettings(_Part):
    """One transform, and the channels it is for."""

    channels: str = "*"
    """Pattern of channel names: `*` stands for any text, `?` for one character."""
    use: str
    """`module:name` of a function or class, or the name of a built-in (`filter`, `pick`, ...)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the class, or bound to the function."""

    @field_validator("use")
    @classmethod
    def _names_something(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?", value):
            raise ValueError("write it as module:name, or give the name of a built-in transform")
        return value


class StageSettings(_Part):
    """A pool of like transformers. Stages follow one another."""

    name: str = "transform"
    """Shown in status and dead letters."""
    transforms: tuple[TransformSettings, ...] = ()
    """What it does, in this order, to the messages whose channels match."""
    replicas: Count = 1
    """How many transformers it has."""
    num_cpus: Amount = 1.0
    """CPUs that Ray reserves for each transformer."""
    num_gpus: GpuAmount = 0.0
    """GPUs that Ray reserves for each transformer."""
    resources: Resources = Field(default_factory=dict)
    """Other Ray resources that each transformer needs."""
    attempts: Annotated[int, Field(ge=1, le=1000, strict=True)] = 3
    """How often a message is tried before it becomes a dead letter."""
    backoff_s: Seconds = 0.1
    """Wait before the second attempt; doubles with each further one."""
    time_limit_s: Limit = 60.0
    """How long one call of a transform may take: for one message, or for one batch where it has a
    batch form. What takes longer is interrupted, and has failed."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("use lower-case letters, digits, - and _")
        return value


class ChannelSettings(_Part):
    """What the channels of a namespace keep and allow. Everything is denied unless allowed."""

    history_size: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 0
    """Publications that a channel keeps. 0: none, and publications have no offsets."""
    history_ttl_s: Annotated[int, Field(ge=0, le=TTL_MAX_S, strict=True)] = 0
    """How long it keeps them after the last one. 0: none are kept."""
    history_meta_ttl_s: Annotated[int, Field(ge=60, le=TTL_MAX_S, strict=True)] = 30 * 24 * 3600
    """How long the position (offset and epoch) outlives them."""
    presence: bool = False
    """Keep a list of who is in each channel."""
    join_leave: bool = False
    """Tell subscribers who comes and goes."""
    force_push_join_leave: bool = False
    """Tell also those who did not ask for it."""
    force_positioning: bool = False
    """Watch every subscriber's position and end a subscription that has a gap."""
    force_recovery: bool = False
    """Make every subscription recoverable."""
    force_recovery_mode: Literal["stream", "cache"] = "stream"
    """What is recovered: all that was missed, or only the latest publication."""
    auto_cache_recover: bool = False
    """Give the latest publication also to those who do not ask for it. Needs `force_recovery`, and
    the mode `cache`."""
    allow_positioning: bool = False
    """Clients may have their position watched on their own wish; who may read the history may
    anyway."""
    allow_recovery: bool = False
    """Clients may recover on their own wish; who may read the history may anyway."""
    allowed_delta_types: tuple[Literal["fossil"], ...] = ()
    """Deltas that subscribers may have in place of whole publications; they need positions."""
    delta_publish: bool = True
    """Send deltas of every publication. Off: of those alone that are published with `delta`."""
    allow_tags_filter: bool = False
    """Subscribers may name the tags of the publications that they want."""
    allow_subscribe_for_client: bool = False
    """Clients with a user id may subscribe without a subscription token."""
    allow_subscribe_for_anonymous: bool = False
    """Clients without a user id may, too."""
    allow_user_limited_channels: bool = False
    """Of channels `name#ann,bob`, only the users after the last `#` may subscribe, without a
    token. Off: such a name is a name like any other."""
    allow_publish_for_client: bool = False
    """Clients with a user id may publish."""
    allow_publish_for_subscriber: bool = False
    """Clients who are subscribed may publish."""
    allow_publish_for_anonymous: bool = False
    """Clients without a user id may publish, where the two above allow it."""
    allow_history_for_client: bool = False
    """Clients with a user id may read the history."""
    allow_history_for_subscriber: bool = False
    """Clients who are subscribed may read the history."""
    allow_history_for_anonymous: bool = False
    """Clients without a user id may read it, where the two above allow it."""
    allow_presence_for_client: bool = False
    """Clients with a user id may ask who is there."""
    allow_presence_for_subscriber: bool = False
    """Clients who are subscribed may ask who is there."""
    allow_presence_for_anonymous: bool = False
    """Clients without a user id may ask, where the two above allow it."""

    authorise_subscribe: bool = False
    """The function `authorise.subscribe` decides who may subscribe without a subscription token;
    in channels limited to some users, those may. What is allowed above does not count."""
    authorise_publish: bool = False
    """The function `authorise.publish` alone decides what clients may publish."""

    @model_validator(mode="after")
    def _fits(self) -> "ChannelSettings":
        cache = self.force_recovery and self.force_recovery_mode == "cache"
        if self.auto_cache_recover and not cache:
            raise ValueError(
                "auto_cache_recover needs force_recovery, and force_recovery_mode: cache: set both"
            )
        return self

    @property
    def has_history(self) -> bool:
        """Whether channels keep publications and give offsets."""
        return self.history_size > 0 and self.history_ttl_s > 0


class EdgeSettings(_Part):
    """The Serve deployment that clients and publishers talk to."""

    listen: str = "127.0.0.1:8000"
    """`host:port` where every edge listens itself: the fast way in."""
    serve_listen: str = "127.0.0.1:8001"
    """`host:port` of Ray Serve's own HTTP; unused where Serve runs already."""
    replicas: Count = 1
    """How many edges there are."""
    num_cpus: Amount = 1.0
    """CPUs that Ray reserves for each edge."""
    publish_timeout_s: Limit = 10.0
    """How long an API publish waits for the commit; 18 s at most where the edge stops."""

    @field_validator("listen", "serve_listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        is_number = port.isascii() and port.isdigit()
        if not host or not is_number or int(port) > 65_535:
            raise ValueError("write it as host:port, e.g. 127.0.0.1:8000")
        return value


class TokenSettings(_Part):
    """Who else may sign client tokens, and for whom they must be meant."""

    public_keys: tuple[str, ...] = ()
    """Public keys, each as PEM text or as the name of a file: RSA for RS256, RS384, RS512; EC for
    ES256, ES384, ES512; Ed25519 or Ed448 for EdDSA."""
    jwks_url: str | None = None
    """`https://` address of a JSON Web Key Set: keys of the same kinds, found by the token's
    `kid`. Read when a token names a key that is not known yet, and once an hour."""
    audience: str | None = None
    """What `aud` must be, or have among others. Unset: not checked."""
    issuer: str | None = None
    """What `iss` must be. Unset: not checked."""

    @field_validator("public_keys")
    @classmethod
    def _public(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("PRIVATE KEY" in key for key in value):
            raise ValueError("holds a private key: give the public one (`openssl pkey -pubout`)")
        for key in value:
            check_path(key)
        return value

    @field_validator("jwks_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]", value):
            raise ValueError("write it as https://host/path")
        return value


class SubscriptionTokenSettings(TokenSettings):
    """Other keys for subscription tokens."""

    enabled: bool = False
    """Judge subscription tokens by this section alone. Off: by what holds for connections."""
    secret: SecretStr | None = None
    """HMAC secret of subscription tokens."""


class AuthSettings(_Part):
    """Keys. Unset secrets are made by `raywire up` or `raywire token`, and kept in `data`."""

    api_key: SecretStr | None = None
    """Key of the server API: printable ASCII."""
    token_secret: SecretStr | None = None
    """HMAC secret of client tokens (HS256, HS384, HS512)."""
    tokens: TokenSettings = TokenSettings()
    subscription_tokens: SubscriptionTokenSettings = SubscriptionTokenSettings()

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else ""
        if not (text.isascii() and text.isprintable()) or text != text.strip():
            # RFC 9110, section 5.5: nothing else is sure to arrive as it was sent.
            raise ValueError("take printable ASCII characters, without blanks at its ends")
        return value


class FeedSettings(_Part):
    """The streams that edges follow."""

    records_max: Annotated[int, Field(ge=100, le=COUNT_MAX, strict=True)] = 10_000
    """Committed batches, joins and leaves that a partition's feed keeps; an edge behind them heals
    from history."""


class DeadSettings(_Part):
    """Entries that no retry can save."""

    records_max: Count = 10_000
    """Dead letters that a partition keeps; the oldest go first."""


class Settings(_Part):
    """The whole tree."""

    app: str = "raywire"
    """First part of every key in Valkey, and the Ray namespace."""
    data: Path = Path(".raywire")
    """Directory for the embedded Valkey, generated secrets, and where we run."""
    code: Path = Path()
    """Directory of the transforms' modules; unset: that of the settings file."""
    demo: bool = False
    """Serve the discussion page."""
    redis: RedisSettings = RedisSettings()
    ray: RaySettings = RaySettings()
    queue: QueueSettings = QueueSettings()
    nozzle: NozzleSettings = NozzleSettings()
    stages: tuple[StageSettings, ...] = ()
    channels: ChannelSettings = ChannelSettings()
    """Channels without a namespace."""
    namespaces: dict[str, ChannelSettings] = Field(default_factory=dict)
    """Channels `name:...`, by name. A channel of another namespace is unknown (102)."""
    client: ClientSettings = ClientSettings()
    edge: EdgeSettings = EdgeSettings()
    auth: AuthSettings = AuthSettings()
    authorise: AuthoriseSettings = AuthoriseSettings()
    feed: FeedSettings = FeedSettings()
    dead: DeadSettings = DeadSettings()

    @field_validator("data", "code")
    @classmethod
    def _path(cls, value: Path) -> Path:
        check_path(value)
        return value

    @field_validator("app")
    @classmethod
    def _app(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("use lower-case letters, digits, - and _")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        if unfit := [name for name in self.namespaces if not _NAMESPACE.fullmatch(name)]:
            raise ValueError(
                f"namespaces: no channel can have {unfit[0]!r}: "
                "use printable ASCII without blanks and colons, and no $ at the beginning"
            )
        if self.nozzle.count > self.queue.partitions:
            raise ValueError("nozzle.count is more than queue.partitions: lower it")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("stages: two have the same name: rename one")
        personal = self.client.subscribe_to_user_personal_channel
        options = self.namespaces.get(personal.namespace) if personal.namespace else self.channels
        if personal.enabled:
            self._guards_personal(personal.namespace, options)
        self._has_functions()
        self._times_fit()
        return self

    def _by_name(self) -> dict[str, ChannelSettings]:
        named = {f"namespaces.{name}": options for name, options in self.namespaces.items()}
        return {"channels": self.channels, **named}

    def _times_fit(self) -> None:
        for where, options in self._by_name().items():
            if options.has_history and options.history_ttl_s > options.history_meta_ttl_s:
                raise ValueError(
                    f"{where}.history_ttl_s: the history goes with its position, which "
                    f"history_meta_ttl_s ends before: raise {where}.history_meta_ttl_s"
                )
        client, functions = self.client, self.authorise
        if client.presence_update_s >= client.presence_ttl_s:
            raise ValueError(
                "client.presence_update_s: entries would end before they are renewed: "
                "set it below client.presence_ttl_s"
            )
        if functions.connect and functions.time_limit_s >= client.stale_close_delay_s:
            raise ValueError(
                "authorise.time_limit_s: clients would be closed for good before connect has "
                "answered: set it below client.stale_close_delay_s"
            )

    def _has_functions(self) -> None:
        for where, options in self._by_name().items():
            for kind in ("subscribe", "publish"):
                if getattr(options, f"authorise_{kind}") and not getattr(self.authorise, kind):
                    raise ValueError(
                        f"{where}.authorise_{kind}: there is nothing to ask: "
                        f"set authorise.{kind} to a function, module:name"
                    )
        functions = self.authorise
        if functions.sub_refresh and not (functions.subscribe or functions.connect):
            raise ValueError(
                "authorise.sub_refresh: it would never be asked, for it prolongs what "
                "authorise.subscribe or authorise.connect allow: set one of these, or take it out"
            )

    def _guards_personal(self, namespace: str, options: ChannelSettings | None) -> None:
        setting = "client.subscribe_to_user_personal_channel"
        if options is None:
            raise ValueError(f"{setting}.namespace: there is no namespace {namespace!r}: add it")
        if options.allow_subscribe_for_client and not options.allow_user_limited_channels:
            where = f"namespaces.{namespace}" if namespace else "channels"
            raise ValueError(
                f"{setting}: every client could subscribe to the channels of others: "
                f"set {where}.allow_user_limited_channels"
            )

    @property
    def window(self) -> int:
        """Return how many batches of a nozzle may be under way."""
        if self.nozzle.window is not None:
            return self.nozzle.window
        return 2 + max((stage.replicas for stage in self.stages), default=1)

    def channel_settings(self, channel: str) -> ChannelSettings | None:
        """Return what holds for a channel, or None where its namespace is unknown.

        The namespace is the text before the first `:`, after a leading `$`.
        """
        namespace, colon, _ = channel.removeprefix("$").partition(":")
        return self.namespaces.get(namespace) if colon else self.channels

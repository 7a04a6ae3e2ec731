"""The settings of clients' connections."""

from typing import Annotated

from pydantic import Field

from actors.settings.part import COUNT_MAX, Count, Limit, Part, Seconds


class PersonalChannelSettings(Part):
    """A channel of each user's own, `#<user>`, which the server subscribes its clients to."""

    enabled: bool = False
    """Subscribe every client that has a user id."""
    namespace: str = ""
    """The channel is then `<namespace>:#<user>`. Empty: `#<user>`."""


class ClientSettings(Part):
    """Limits and times of client connections (defaults: Centrifugo's)."""

    insecure: bool = False
    """Let every client do everything. For development only."""
    allow_anonymous: bool = False
    """Accept clients without a token, as user ""."""
    subscribe_to_user_personal_channel: PersonalChannelSettings = PersonalChannelSettings()
    allowed_origins: tuple[str, ...] = ()
    """Origins of pages that may connect, besides the edge's own. `*` allows all."""
    ping_interval_s: Limit = 25.0
    """Time between two pings."""
    pong_timeout_s: Limit = 8.0
    """How long a client may take to answer a ping (close code 3012)."""
    stale_close_delay_s: Limit = 10.0
    """How long a client may take to connect (close code 3502)."""
    expired_close_delay_s: Seconds = 25.0
    """How long after its token's end a client may still refresh it (close code 3005)."""
    expired_sub_close_delay_s: Seconds = 25.0
    """The same for a subscription (unsubscribe code 2501; made by the server: close code 3006)."""
    frame_bytes_max: Annotated[int, Field(ge=512, le=2**30, strict=True)] = 65_536
    """Size of one frame from a client (close code 1009)."""
    outbox_bytes_max: Annotated[int, Field(ge=1024, le=2**40, strict=True)] = 2**20
    """Bytes that may wait for one client behind what it is being sent; more: it is closed as too
    slow (3008)."""
    channels_max: Count = 128
    """Subscriptions of one client (error 106)."""
    channel_length_max: Annotated[int, Field(ge=1, le=255, strict=True)] = 255
    """Length of the channel names that clients may use (error 107)."""
    user_connections_max: Annotated[int, Field(ge=0, le=COUNT_MAX, strict=True)] = 0
    """Connections of one user to one edge (close code 3504). 0: any number."""
    connections_max: Count = 10_000
    """Connections of one edge; one more is refused with status 503."""
    history_max: Count = 300
    """Publications that one history request of a client may return."""
    recovery_max: Count = 300
    """Publications that a client may recover; one that missed more recovers none."""
    filter_conditions_max: Count = 100
    """Conditions of one tag filter, those that join others included (error 107)."""
    filter_values_max: Count = 1_000
    """Values in all lists (`in`, `nin`) of one tag filter (error 107)."""
    position_check_s: Limit = 40.0
    """How often an edge compares the positions of its quiet channels with Valkey's."""
    presence_update_s: Limit = 27.0
    """How often an edge renews its clients' presence."""
    presence_ttl_s: Limit = 60.0
    """How long a presence entry lasts without renewal."""

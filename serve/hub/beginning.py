"""What a subscription starts with: the channel's position, and what its client has missed."""

from collections.abc import Callable

from actors.errors import UnavailableError
from actors.settings.client import ClientSettings
from actors.store.interface import EdgeStore, History
from serve.hub.channel import Channel
from serve.hub.healer import Healer
from serve.session.subscription import Subscription


class Beginning:
    """Reads of the history what the reply to a subscription needs; mostly that is nothing.

    Args:
        store: Where the histories are.
        limits: How much a client may recover.
        healer: Knows when a channel's position is settled.
        suspect: Has a channel healed from its history.
    """

    def __init__(
        self,
        store: EdgeStore,
        limits: ClientSettings,
        healer: Healer,
        suspect: Callable[[Channel], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._healer = healer
        self._suspect = suspect

    async def read(self, channel: Channel, subscription: Subscription) -> History:
        """Return it. The subscription holds what comes meanwhile.

        Raises:
            UnavailableError: The store is away, or is behind what this edge has seen.
        """
        await self._healer.settled(channel)
        top, epoch = channel.order.top, channel.order.epoch
        read = subscription.read(top, epoch, self._limits.recovery_max)
        if read is None:
            return History(top, epoch, [])
        history = await self._store.history(
            channel.name,
            since=read.since,
            limit=read.limit,
            reverse=read.reverse,
            meta_ttl_s=channel.options.history_meta_ttl_s,
        )
        if history.epoch != epoch:
            subscription.lose()
            self._suspect(channel)
        elif history.offset < top:
            raise UnavailableError("the history is behind the feed")
        return history

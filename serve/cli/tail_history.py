"""A channel's history, read where it is kept: for `raywire tail` on the system's own machine."""

from typing import Final

import msgspec

from actors.errors import UnavailableError
from actors.settings.tree import ChannelSettings
from serve.cli.system import System
from serve.cli.tail_protocol import PAGE, Position, Publication

_decode: Final = msgspec.json.Decoder(Publication).decode


class HistoryReader:
    """Reads history past the permissions of clients. Belongs to one event loop."""

    def __init__(self, system: System) -> None:
        self._settings = system.settings
        self._store = system.store()

    async def read(self, channel: str, offset: int | None) -> Position:
        """Return what comes after an offset, or the first part of it.

        None: the position alone, or an empty one where it cannot be had: a channel without
        history, a server that cannot be reached.

        Raises:
            UnavailableError: The server cannot be reached.
        """
        options = self._settings.channel_settings(channel) or ChannelSettings()
        if offset is None:
            return await self._position(channel, options)
        history = await self._store.history(
            channel, since=offset, limit=PAGE, meta_ttl_s=options.history_meta_ttl_s
        )
        return Position(
            offset=history.offset,
            epoch=history.epoch,
            publications=[
                msgspec.structs.replace(_decode(body), offset=number)
                for number, body in history.publications
            ],
        )

    async def _position(self, channel: str, options: ChannelSettings) -> Position:
        if not options.has_history:
            return Position()
        try:
            history = await self._store.history(
                channel, since=None, limit=0, meta_ttl_s=options.history_meta_ttl_s
            )
        except UnavailableError:
            return Position()
        return Position(offset=history.offset, epoch=history.epoch)

    async def close(self) -> None:
        """Close the connection."""
        await self._store.close()

"""Quiet channels are compared with the store."""

import pytest

from actors.errors import UnavailableError
from actors.settings.tree import ChannelSettings
from actors.store.interface import History
from actors.store.memory.store import MemoryStore
from serve.hub.channel import Channel
from serve.hub.position_check import PositionCheck

KEPT = ChannelSettings(history_size=10, history_ttl_s=60)


class Watched(Channel):
    """A channel that somebody depends on."""

    def __init__(self, name: str, position: tuple[int, str], *, positioned: bool = True) -> None:
        super().__init__(name, KEPT)
        self.positioned = positioned
        self.order.heal(History(*position, []))

    def must_be_whole(self) -> bool:
        """Tell whether anybody depends on it."""
        return self.positioned


class Store(MemoryStore):
    """A store with positions as the test wants them."""

    def __init__(self, **positions: tuple[int, str]) -> None:
        super().__init__()
        self.positions = positions
        self.asked: list[str] = []
        self.away = False

    async def history(self, channel: str, **how: object) -> History:
        """Tell the position."""
        if self.away:
            raise UnavailableError("away")
        self.asked.append(channel)
        return History(*self.positions[channel], [])


async def looked(store: Store, *channels: Channel, rounds: int = 2) -> list[str]:
    """Do rounds; return the names of suspects."""
    suspects: list[str] = []
    check = PositionCheck(store, 1, lambda: channels, lambda c: suspects.append(c.name))
    for _ in range(rounds):
        await check.look()
    return suspects


@pytest.mark.parametrize(
    ("position", "suspect"),
    [((5, "e"), False), ((6, "e"), True), ((5, "f"), True), ((4, "e"), False)],
)
async def test_channel_behind_the_store_is_suspect(
    position: tuple[int, str], suspect: bool
) -> None:
    """Or one of another epoch. The feed ahead of the answer is none."""
    assert await looked(Store(a=position), Watched("a", (5, "e"))) == ["a"] * suspect


async def test_only_quiet_channels_that_matter_are_asked_for() -> None:
    """Not in the first round, nor where something came; nor where nobody minds, or one heals."""
    store = Store(quiet=(1, "e"), moving=(9, "e"), any=(1, "e"), healing=(1, "e"))
    quiet, moving = Watched("quiet", (1, "e")), Watched("moving", (1, "e"))
    loose, healing = Watched("any", (1, "e"), positioned=False), Watched("healing", (1, "e"))
    healing.order.suspect()
    check = PositionCheck(store, 1, lambda: (quiet, moving, loose, healing), lambda channel: None)
    for _ in range(3):
        await check.look()
        moving.order.offer(moving.order.top + 1, "e", [b"{}"])
    assert store.asked == ["quiet", "quiet"]


async def test_nothing_is_suspect_while_the_store_is_away() -> None:
    """The next round looks again."""
    store = Store(a=(6, "e"))
    suspects: list[str] = []
    channel = Watched("a", (5, "e"))
    check = PositionCheck(store, 1, lambda: (channel,), lambda c: suspects.append(c.name))
    await check.look()
    store.away = True
    await check.look()
    assert suspects == []
    store.away = False
    await check.look()
    assert suspects == ["a"]

"""Those of a channel's subscriptions that get its publications as they come, grouped.

What is sent is made once for all of a group: those of one wire that see publications in one shape.
"""

from collections.abc import Sequence
from typing import Any

from serve.protocol.shape import DELTAS, Run, Shape, chained, whole
from serve.protocol.wire import Wire
from serve.session.connection import Connection
from serve.session.subscription import Subscription

Members = dict[Subscription, Connection]
Delivery = tuple[Wire, Members, Sequence[Run]]
"""Who gets which publications, and in which form. Valid until the next call."""


class Live:
    """The groups. Every subscription here is given every publication, in order.

    One that wants deltas gets one publication whole at first, and from then on what all others
    get who have the one before. That one's data are kept while there is anybody who has them.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Wire, Shape], Members] = {}
        self._chained: dict[Wire, Members] = {}
        self._base: bytes | None = None

    def __len__(self) -> int:
        return sum(map(len, (*self._groups.values(), *self._chained.values())))

    def add(self, subscription: Subscription, connection: Connection) -> None:
        """Take a subscription that has started."""
        key = connection.wire, subscription.shape
        self._groups.setdefault(key, {})[subscription] = connection

    def remove(self, subscription: Subscription, connection: Connection) -> None:
        """Forget it."""
        _remove(self._groups, (connection.wire, subscription.shape), subscription)
        _remove(self._chained, connection.wire, subscription)
        if not self._chained:
            self._base = None

    def members(self) -> list[tuple[Subscription, Connection]]:
        """Return all subscriptions."""
        groups = (*self._groups.values(), *self._chained.values())
        return [item for members in groups for item in members.items()]

    def take(self, runs: Sequence[Run]) -> list[Delivery]:
        """Return who gets publications, and as what."""
        found: list[Delivery] = []
        made: dict[Shape, Sequence[Run]] = {}
        fresh: dict[Wire, Members] = {}
        for (wire, shape), members in self._groups.items():
            if shape is DELTAS:
                fresh[wire] = members
                continue
            if shape not in made:
                made[shape] = shape.shaped(runs)
            found.append((wire, members, made[shape]))
        if fresh or self._chained:
            found += self._take_chained(runs, fresh)
        return found

    def _take_chained(self, runs: Sequence[Run], fresh: dict[Wire, Members]) -> list[Delivery]:
        changes, self._base = chained(self._base, runs)
        # Those who are about to be joined by the fresh ones as they are now.
        found: list[Delivery] = [
            (wire, dict(own) if wire in fresh else own, changes)
            for wire, own in self._chained.items()
        ]
        first, bodies = runs[0]
        begun = [(first, [whole(bodies[0]), *changes[0][1][1:]]), *changes[1:]]
        for wire, members in fresh.items():
            found.append((wire, members, begun))
            del self._groups[wire, DELTAS]
            self._chained.setdefault(wire, {}).update(members)
        return found


def _remove(groups: dict[Any, Members], key: Any, subscription: Subscription) -> None:
    members = groups.get(key)
    if members is not None:
        members.pop(subscription, None)
        if not members:
            del groups[key]

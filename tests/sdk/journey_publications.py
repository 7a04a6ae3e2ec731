"""What clients of any SDK are sent in place of all publications: deltas, some, or the latest."""

import json
from typing import Any, Final

from tests.sdk.cable import cable_to
from tests.sdk.journey import Journey

TEXT: Final = [f"{n * n % 9973} grüße \N{WAVING HAND SIGN}" for n in range(100)]
"""About 2 KB that differ, with characters of one, two and four bytes."""
WANTED: Final = {
    "op": "and",
    "nodes": [
        {"key": "fruit", "cmp": "in", "vals": ["apple", "pear"]},
        {"op": "not", "nodes": [{"key": "usd", "cmp": "gt", "val": "9"}]},
    ],
}


def version(number: int) -> dict[str, Any]:
    """Return data that differ in two places from those of the number before."""
    return {"number": number, "text": TEXT, "last": f"v{number}"}


async def deltas(way: Journey) -> None:
    """What comes is whole, though little of it was sent: also what is recovered after a cut."""
    channel = "deltas:page"
    async with cable_to(way.two.clients.address) as cable:
        ann = await way.client("ann", cable.address)
        await ann.subscribe(channel, {"delta": "fossil", "recoverable": True})
        before = cable.heard_bytes
        sent = [version(number) for number in range(12)]
        await way.publish(*sent[:9], channel=channel)
        assert await ann.data(9) == sent[:9]

        await cable.cut()
        await ann.hear("connecting")
        await way.publish(*sent[9:11], channel=channel)
        await cable.mend()
        assert (await ann.hear("subscribed"))["recovered"]
        await way.publish(sent[11], channel=channel)
        assert await ann.data(3) == sent[9:]
        # Whole are the first, the first that is recovered, and the first after that.
        whole_bytes = len(json.dumps(sent[0], ensure_ascii=False).encode())
        assert cable.heard_bytes - before < 5 * whole_bytes


async def filters(way: Journey) -> None:
    """Only what fits comes, live and recovered; where no filter is allowed, error 107."""
    channel = "tagged:prices"

    async def publish(number: int, fruit: str, usd: int) -> None:
        tags = {"fruit": fruit, "usd": str(usd)}
        await way.two.call("publish", channel=channel, data=number, tags=tags)

    async with cable_to(way.two.clients.address) as cable:
        ann = await way.client("ann", cable.address)
        await ann.subscribe(channel, {"tags_filter": WANTED, "recoverable": True})
        await publish(1, "apple", 3)
        await publish(2, "plum", 3)
        await publish(3, "pear", 10)
        await publish(4, "pear", 9)
        heard = [await ann.hear("publication") for _ in range(2)]
        assert [(one["data"], one["offset"]) for one in heard] == [(1, 1), (4, 4)]
        assert heard[1]["tags"] == {"fruit": "pear", "usd": "9"}

        await cable.cut()
        await ann.hear("connecting")
        await publish(5, "plum", 1)
        await publish(6, "apple", 1)
        await publish(7, "apple", 11)
        await cable.mend()
        assert (await ann.hear("subscribed"))["recovered"]
        await publish(8, "pear", 2)
        assert await ann.data(2) == [6, 8]
        await ann.call("subscribe", "news", {"tags_filter": WANTED})
        assert (await ann.hear("unsubscribed"))["code"] == 107


async def caches(way: Journey) -> None:
    """Of all that was missed only the latest comes; a new subscriber has it where that is set."""
    async with cable_to(way.two.clients.address) as cable:
        ann = await way.client("ann", cable.address)
        first = await ann.subscribe("cache:page")
        assert first["recoverable"]
        await way.publish(1, channel="cache:page")
        assert await ann.data(1) == [1]

        await cable.cut()
        await ann.hear("connecting")
        await way.publish(2, 3, 4, channel="cache:page")
        await cable.mend()
        again = await ann.hear("subscribed")
        assert (again["was_recovering"], again["recovered"]) == (True, True)
        await way.publish(5, channel="cache:page")
        assert await ann.data(2) == [4, 5]

        # It has the latest already.
        await cable.cut()
        await ann.hear("connecting")
        await cable.mend()
        assert (await ann.hear("subscribed"))["recovered"]
        await way.publish(6, channel="cache:page")
        assert await ann.data(1) == [6]

        await way.publish(1, 2, channel="latest:page")
        assert (await ann.subscribe("latest:page"))["recovered"]
        assert await ann.data(1) == [2]
        if way.kind.sdk == "javascript":  # The other has no `since`.
            await way.publish(1, 2, channel="cache:other")
            assert (await ann.subscribe("cache:other", {"since": {}}))["recovered"]
            assert await ann.data(1) == [2]

"""Centrifugo's SDKs, JavaScript under Node and Python, against real edges."""

from collections.abc import AsyncIterator

import pytest

from tests.sdk import journey, journey_publications, journey_rules, journey_tokens
from tests.sdk.journey import Journey
from tests.sdk.kinds import JAVASCRIPT, PYTHON, Kind

pytestmark = pytest.mark.sdk


@pytest.fixture(params=[*JAVASCRIPT, *PYTHON], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each SDK with each transport."""
    found: Kind = request.param
    return found


@pytest.fixture
async def way(kind: Kind) -> AsyncIterator[Journey]:
    """Two edges."""
    async with journey.journey(kind) as found:
        yield found


async def test_conversation(way: Journey) -> None:
    """Subscribe, publish, join and leave, presence, unsubscribe, between two edges."""
    await journey.conversation(way)


async def test_history(way: Journey) -> None:
    """By limit, from a position on, backwards; 112 where the epoch is over."""
    await journey.history(way)


async def test_recovery(way: Journey) -> None:
    """After a cut exactly what was missed, once, and `recovered` is true only if all is there."""
    await journey.recovery(way)


async def test_server_ends(way: Journey) -> None:
    """Unsubscribe, and disconnect with codes to come back and codes to stay away."""
    await journey.server_ends(way)


async def test_edge_leaves(way: Journey) -> None:
    """Its clients are told to come back."""
    await journey.edge_leaves(way)


async def test_server_subscribes(way: Journey) -> None:
    """Subscriptions that the server makes come and go."""
    await journey.server_subscribes(way)


async def test_refusals(way: Journey) -> None:
    """The codes of refused calls, subscriptions and connections."""
    await journey.refusals(way)


async def test_deltas(way: Journey) -> None:
    """Whole data from little that is sent."""
    await journey_publications.deltas(way)


async def test_filters(way: Journey) -> None:
    """Publications with the tags that are wanted, and no others."""
    await journey_publications.filters(way)


async def test_caches(way: Journey) -> None:
    """The latest publication in place of all that were missed."""
    await journey_publications.caches(way)


async def test_tokens() -> None:
    """Tokens of connections and subscriptions are renewed; those that are refused end them.

    All kinds at once, as time must pass.
    """
    await journey.side_by_side([*JAVASCRIPT, *PYTHON], journey_tokens.tokens)


async def test_rules(kind: Kind) -> None:
    """Functions of the app's decide, and answer calls."""
    async with journey.journey(kind, journey_rules.RULED) as way:
        await journey_rules.rules(way)

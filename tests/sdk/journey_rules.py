"""What clients of any SDK see of an app's functions that decide (`tests.sdk.rules`)."""

from typing import Final

import pytest

from actors.settings.authorise import AuthoriseSettings
from tests.sdk.client import CallError, Options
from tests.sdk.journey import OPEN, SETTINGS, Journey

RULED: Final = SETTINGS.model_copy(
    update={
        "authorise": AuthoriseSettings(
            connect="tests.sdk.rules:connect",
            subscribe="tests.sdk.rules:subscribe",
            publish="tests.sdk.rules:publish",
            rpc="tests.sdk.rules:rpc",
        ),
        "namespaces": {
            "ruled": OPEN.model_copy(
                update={"authorise_subscribe": True, "authorise_publish": True}
            )
        },
    }
)


async def rules(way: Journey) -> None:
    """Their data reach the client, and so do the codes and reasons of their refusals."""

    eve = await way.open(Options(data={"user": "eve", "password": "tulip"}))
    await eve.call("connect")
    ended = await eve.hear("disconnected")
    assert (ended["code"], ended["reason"]) == (4501, "log in first")

    ann = await way.open(Options(data={"user": "ann", "password": "rose"}))
    await ann.call("connect")
    assert (await ann.hear("connected"))["data"] == {"welcome": "ann"}
    assert (await ann.hear("server_subscribed"))["channel"] == "ruled:all"
    found = await ann.subscribe("ruled:garden", {"data": [1, "a"]})
    assert found["data"] == {"asked": [1, "a"]}
    await ann.call("publish", "ruled:garden", "hello")
    heard = await ann.hear("publication")
    assert heard["data"] == {"text": "hello", "by": "ann"}
    assert heard["info"]["conn_info"] == {"nick": "Ann"}
    assert heard["info"]["chan_info"] == {"role": "guest"}
    await ann.call("publish", "ruled:all", "hello all")
    assert (await ann.hear("server_publication"))["data"] == {"text": "hello all", "by": "ann"}
    assert await ann.call("rpc", "add", [1, 2, 39]) == {"data": {"sum": 42}}

    for call, refusal in (
        (("publish", "ruled:board", "hello"), (401, "only the chair writes here")),
        (("rpc", "subtract", [1, 2]), (104, "method not found")),
        (("rpc", "add", 1), (100, "internal server error")),
    ):
        with pytest.raises(CallError) as error:
            await ann.call(*call)
        assert error.value.args == refusal
    await ann.call("subscribe", "ruled:cellar", {})
    ended = await ann.hear("unsubscribed")
    assert (ended["code"], ended["reason"]) == (403, "not in there")
    await ann.call("subscribe", "ruled:gate", {})
    ended = await ann.hear("disconnected")
    assert (ended["code"], ended["reason"]) == (4502, "do not knock")

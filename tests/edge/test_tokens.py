"""Tokens on a real edge, with the keys of a real endpoint."""

import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from actors.settings.client import ClientSettings
from actors.settings.tree import AuthSettings, ChannelSettings, Settings, TokenSettings
from actors.store.memory.store import MemoryStore
from serve.auth.tokens import make_token
from tests.edge.test_edge import SETTINGS, command, publish, running_edge, websocket
from tests.in_process import pipeline
from tests.key_endpoint import serving_keys
from tests.signing import jwk, key, key_set, public_pem

CLOSED = ChannelSettings(history_size=10, history_ttl_s=60, force_recovery=True)


def with_tokens(tokens: TokenSettings) -> Settings:
    """Nothing is allowed without a token."""
    auth = AuthSettings(api_key=SETTINGS.auth.api_key, tokens=tokens)
    return SETTINGS.model_copy(
        update={"client": ClientSettings(), "channels": CLOSED, "auth": auth}
    )


async def test_keys_of_an_endpoint_open_what_tokens_name() -> None:
    """Both kinds of token; the keys are read once, when the first one comes."""
    private, now_s = key("EdDSA"), time.time()

    def signed(channel: str | None) -> str:
        return make_token(
            private, "ann", now_s=now_s, ttl_s=60, channel=channel, algorithm="EdDSA", kid="k1"
        )

    store = MemoryStore(2)
    with serving_keys(key_set(jwk(private, "k1", "EdDSA"))) as endpoint:
        settings = with_tokens(TokenSettings(jwks_url=endpoint.url))
        async with (
            pipeline(store, SETTINGS),
            running_edge(store, settings) as edge,
            websocket(edge) as client,
        ):
            connected = await command(client, id=1, connect={"token": signed(None)})
            assert connected["connect"]["expires"]
            subscribed = await command(
                client, id=2, subscribe={"channel": "$news", "token": signed("$news")}
            )
            assert subscribed["subscribe"]["expires"]
            refreshed = await command(
                client, id=3, sub_refresh={"channel": "$news", "token": signed("$news")}
            )
            assert 50 < refreshed["sub_refresh"]["ttl"] <= 60
            await publish(edge, channel="$news", data=1)
            assert json.loads(await client.recv())["push"]["pub"]["data"] == 1
        assert endpoint.asked == 1


async def test_endpoint_that_is_away_is_told_as_a_passing_error() -> None:
    """The client may come back, and others, whose keys are in the settings, are let in."""
    private, now_s = key("ES256"), time.time()
    away = TokenSettings(jwks_url="http://127.0.0.1:1/", public_keys=(public_pem(private),))
    async with running_edge(MemoryStore(2), with_tokens(away)) as edge:
        async with websocket(edge) as client:
            unknown = make_token(key("RS256"), "ann", now_s=now_s, algorithm="RS256", kid="k1")
            reply = await command(client, id=1, connect={"token": unknown})
            assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
        async with websocket(edge) as client:
            known = make_token(private, "ann", now_s=now_s, algorithm="ES256")
            assert "connect" in await command(client, id=1, connect={"token": known})


async def test_server_side_subscription_goes_on_after_a_break() -> None:
    """The token makes it; the position of before brings what came meanwhile."""
    private = key("ES256")
    made = make_token(private, "ann", now_s=time.time(), channels=["news"], algorithm="ES256")
    settings = with_tokens(TokenSettings(public_keys=(public_pem(private),)))
    store = MemoryStore(2)
    async with pipeline(store, SETTINGS), running_edge(store, settings) as edge:
        async with websocket(edge) as client:
            first = (await command(client, id=1, connect={"token": made}))["connect"]["subs"]
        await publish(edge, channel="news", data=1)
        before = {"recover": True, "epoch": first["news"]["epoch"], "offset": 0}
        async with websocket(edge) as client:
            again = await command(client, id=1, connect={"token": made, "subs": {"news": before}})
        result = again["connect"]["subs"]["news"]
        assert result["recovered"]
        assert result["publications"] == [{"data": 1, "offset": 1}]


async def test_bad_token_ends_the_connection() -> None:
    """With a close frame, 3500."""
    settings = with_tokens(TokenSettings(public_keys=(public_pem(key("ES256")),)))
    made = make_token(key("ES256", "other"), "ann", now_s=time.time(), algorithm="ES256")
    async with running_edge(MemoryStore(2), settings) as edge, websocket(edge) as client:
        await client.send(json.dumps({"id": 1, "connect": {"token": made}}))
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3500

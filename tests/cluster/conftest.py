"""A real local Ray for the cluster tests, one for all of them."""

from collections.abc import Iterator

import pytest
import ray

from serve.system.local_ray import start


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of our own, as `raywire up` starts it."""
    start(cpus=4, object_store_bytes=100_000_000)
    yield
    ray.shutdown()

"""A real local Ray for the cluster tests, one for all of them."""

import logging
import os
from collections.abc import Iterator

import pytest
import ray

LEAN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Else its workers yield to whatever runs beside them.
    "RAY_worker_niceness": "0",
}


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of our own, as lean as `raywire up` starts it."""
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=16,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"max_direct_call_object_size": 2_000_000},
    )
    yield
    ray.shutdown()

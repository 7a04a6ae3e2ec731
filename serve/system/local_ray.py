"""A Ray of this machine's own, as lean as live data want it."""

import logging
import os
from typing import Any, Final

# Read by Ray when it is imported, here and in every process it starts.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray makes its workers yield to everything else on the machine, which is not for live data.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Serve replaces a proxy that died after three failed checks: at its 10 s, half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
# Batches travel inline, beside the call, up to this size; through the object store a hop costs
# many times more (docs/architecture.md).
_INLINE_BYTES_MAX: Final = 2_000_000


def prepare() -> None:
    """Set what Ray reads of the environment, but for what is set. Call it before Ray's import."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def start(*, cpus: int, object_store_bytes: int, **options: Any) -> None:
    """Start it, and connect.

    Args:
        cpus: Logical ones: more parts than cores is fine on one machine.
        object_store_bytes: Of its object store. Batches travel inline, so it may be small.
        options: More of `ray.init`.
    """
    prepare()
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=cpus,
        object_store_memory=object_store_bytes,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"max_direct_call_object_size": _INLINE_BYTES_MAX},
        **options,
    )

"""The settings of the servers that carry us: Valkey or Redis, and Ray."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from actors.settings.part import Limit, Part


class RedisSettings(Part):
    """Where the facts are kept."""

    url: SecretStr | None = None
    """`redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/service/db` or
    `redis+cluster://host:port`. Unset: an embedded Valkey that keeps its data in `data`."""
    timeout_s: Limit = 5.0
    """How long one command, or a connection attempt, may take."""
    appendfsync: Literal["everysec", "always"] = "everysec"
    """When the embedded Valkey flushes to the disk. What was answered survives the death of any
    process either way; a power cut may take the last second, or with `always` nothing, for which
    each answer waits for the disk."""


class RaySettings(Part):
    """The Ray cluster that carries the pipeline."""

    address: str = "local"
    """`local`: a Ray of our own, which ends with us. Else the address of a running cluster."""
    object_store_bytes: Annotated[int, Field(ge=80_000_000, le=2**50, strict=True)] = 100_000_000
    """Size of the object store of a local Ray. Batches travel inline, so it may be small."""

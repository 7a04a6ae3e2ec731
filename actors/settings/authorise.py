"""The settings of functions that decide what clients may do."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from actors.settings.part import Count, Limit, Part


class AuthoriseSettings(Part):
    """Functions of your own, `module:name`, that decide what clients may do."""

    connect: str | None = None
    """Is asked who connects without a token."""
    subscribe: str | None = None
    """Is asked in namespaces with `authorise_subscribe`."""
    publish: str | None = None
    """Is asked in namespaces with `authorise_publish`."""
    rpc: str | None = None
    """Answers the calls of clients, and `rpc` of the server API. Unset: they get error 108."""
    refresh: str | None = None
    """Is asked when a connection's time is up, whoever has set it. Clients are not told of it then,
    and do not refresh their tokens."""
    sub_refresh: str | None = None
    """Is asked when the time of a subscription is up that `subscribe` or `connect` has set."""
    time_limit_s: Limit = 5.0
    """How long a call may take. Who waits for one that takes longer gets error 100."""
    threads: Annotated[int, Field(ge=1, le=1000, strict=True)] = 16
    """Calls of functions without `async` that run at once in an edge; more wait."""
    calls_max: Count = 1_000
    """Calls that run or wait in an edge; more are refused (error 111)."""

    @field_validator("connect", "subscribe", "publish", "rpc", "refresh", "sub_refresh")
    @classmethod
    def _names_a_function(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("write it as module:name")
        return value

"""What every part of the settings' tree is made of."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

TTL_MAX_S: Final = 10 * 365 * 24 * 3600
"""Ten years. Where an expiry is more than a server can count, the commit that sets it fails."""
COUNT_MAX: Final = 10**9
"""More than anybody needs, and far from what Valkey, C and Lua cannot count any more."""


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("give a number")  # noqa: TRY004  a setting's value
    return value


Number = Annotated[float, BeforeValidator(_no_flag)]
"""Also as text: to YAML, 1e3 is some."""
Seconds = Annotated[Number, Field(ge=0, le=TTL_MAX_S)]
Limit = Annotated[Number, Field(ge=0.001, le=1_000_000)]
"""Seconds that something may take, or that lie between two of a kind: what a timer can do."""
Count = Annotated[int, Field(ge=1, le=COUNT_MAX, strict=True)]


def check_path(path: str | Path) -> None:
    """Refuse a path that means no file or directory.

    Raises:
        ValueError: It begins with the home directory of a user that there is not, or has a NUL.
    """
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ValueError(f"there is no home directory {user}: write the path in full") from error
    if "\0" in str(path):
        raise ValueError("no path has a NUL in it: take it out")


class Part(BaseModel):
    """A frozen part of the tree that refuses names it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

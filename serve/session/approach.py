"""How a client came to us, as the user's connect function sees it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Approach:
    """What is known of a client before it says anything.

    Attributes:
        transport: Name of the transport; empty: unknown.
        headers: Of its HTTP request, names in lower case.
    """

    transport: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


UNKNOWN: Final = Approach()


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name in lower case; those sent twice are joined, RFC 9110, section 5.3."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found

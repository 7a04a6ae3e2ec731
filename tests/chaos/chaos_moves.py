"""The transforms of a run, and what they do to each message, for the comparison.

Copied beside the run's settings file: it must not import anything of the tests.
"""

from typing import Any

from actors.message import Message

_MOVED_EVERY = 3
_TARGETS = 10


def destination(source: str, number: int) -> str:
    """Return the channel to which the `number`-th message of a source goes."""
    kind, _, index = source.partition(".")
    if kind == "moving" and number % _MOVED_EVERY == 0:
        return f"moved.{int(index) % _TARGETS}"
    return source


def double(message: Message) -> Message:
    """Add a field."""
    data: dict[str, Any] = message.data
    return message.replace(data={**data, "double": 2 * data["n"]})


def move(message: Message) -> Message:
    """Send every third message of the moving channels elsewhere."""
    return message.replace(channel=destination(message.channel, message.data["n"]))

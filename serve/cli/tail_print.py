"""How publications look: coloured lines on a terminal, JSON lines in a pipe."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from rich.console import Console
from rich.text import Text

from serve.cli.output import printable
from serve.cli.tail_protocol import Publication

_encode: Final = msgspec.json.Encoder().encode

Shown = Sequence[tuple[str, Publication]]


class _Line(msgspec.Struct):
    channel: str
    offset: int | None
    data: msgspec.Raw
    tags: dict[str, str]


class Printer(Protocol):
    """Where publications go."""

    def show(self, publications: Shown) -> None:
        """Show publications, in order, and flush.

        Raises:
            ReaderGoneError, OutputError: Nobody reads any more, or it cannot be written.
        """
        ...


class JsonPrinter:
    """One JSON object a line: `channel`, `offset` (null without history), `data`, `tags`."""

    def show(self, publications: Shown) -> None:
        """See `Printer.show`; the data's text is passed on as it came."""
        lines = [
            _encode(_Line(channel, each.offset or None, each.data, each.tags))
            for channel, each in publications
        ]
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()


class TerminalPrinter:
    """Time of arrival, channel, offset, data and tags."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._clock = clock

    def show(self, publications: Shown) -> None:
        """See `Printer.show`; control characters are shown, not obeyed."""
        now_s = self._clock()
        at = time.strftime("%H:%M:%S", time.localtime(now_s)) + f".{int(now_s * 1000) % 1000:03d}"
        self._console.print(
            Text("\n").join(_line(at, channel, each) for channel, each in publications),
            soft_wrap=True,
        )


def _line(at: str, channel: str, publication: Publication) -> Text:
    tags = " ".join(f"{key}={value}" for key, value in publication.tags.items())
    return Text.assemble(
        (at, "dim"),
        " ",
        (printable(channel), "cyan"),
        " ",
        (str(publication.offset or "-"), "yellow"),
        " ",
        printable(bytes(publication.data).decode(errors="replace")),
        (f" {printable(tags)}" if tags else "", "dim"),
    )

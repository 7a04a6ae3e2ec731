"""The standard streams of a command: there in any case, and their errors in our words."""

import io
import os
import sys
from typing import Any, Final

from actors.errors import RaywireError

_CLOSED: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class ReaderGoneError(RaywireError):
    """Nobody reads what we print: there is nothing left to do."""


class OutputError(RaywireError):
    """What we print cannot be written, e.g. as the disk is full. The text says why."""


class _Output(io.FileIO):
    """Where stdout goes; its errors are no `OSError`, so none is taken for one of a network."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            raise OutputError(f"stdout: {error.strerror}") from error


def prepare() -> None:
    """Open what the shell has closed, and let writing to stdout fail with errors of ours.

    From then on it fails with `ReaderGoneError` or `OutputError`, whoever writes.
    """
    # In this order: each gets its own number, the lowest that is free.
    for name, mode in _CLOSED:
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, mode, encoding="utf-8", closefd=False))
    given = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(given.fileno(), "w", closefd=False)),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.isatty(),
    )


def silence_stdout() -> None:
    """Let go what was not written: Python flushes stdout at its end, and would complain there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

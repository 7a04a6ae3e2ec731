"""Errors of a user's code, shown as its author needs them: their file, their line, none of ours."""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_OURS: Final = Path(__file__).resolve().parents[1]
_LINE_CHARS_MAX: Final = 300
_FRAMES_MAX: Final = 10
"""A recursion without end has a thousand frames that all say the same."""


def one_line(error: BaseException) -> str:
    """Return the kind of error and the first line of its text, as text that can be encoded."""
    try:
        text = str(error).strip()
    except Exception as broken:  # noqa: BLE001  an exception of the user's whose __str__ fails
        text = f"(its text cannot be had: {type(broken).__name__})"
    first = text.splitlines()[0] if text else ""
    name = type(error).__name__
    return _encodable(f"{name}: {first}" if first else name)[:_LINE_CHARS_MAX]


def users_frames(error: BaseException, code: Path) -> list[traceback.FrameSummary]:
    """Return the last frames of the traceback that lie in `code`, the latest at the end.

    If none does, as with transforms from an installed package: those that are not ours.
    """
    return _users(traceback.extract_tb(error.__traceback__), code)


def users_stack(frames: Sequence[traceback.FrameSummary], code: Path) -> str:
    """Return where a call is that has not ended, with the user's frames only, the latest last."""
    return "".join(traceback.format_list(_users(frames, code))).rstrip()


def users_traceback(error: BaseException, code: Path) -> str:
    """Return the traceback as Python prints it, with the user's frames only.

    As text that can be encoded.
    """
    frames = users_frames(error, code)
    head = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return _encodable("".join(head if frames else [])) + one_line(error)


def users_line(error: BaseException, code: Path) -> str:
    """Return the error, and below it the user's file, line number and source line."""
    if isinstance(error, SyntaxError) and error.filename:
        # The line that does not parse is in no frame: it never ran.
        place = _place(error.filename, error.lineno, error.text)
        return f"{type(error).__name__}: {error.msg}{place}"
    frames = users_frames(error, code)
    if not frames:
        return one_line(error)
    return one_line(error) + _place(frames[-1].filename, frames[-1].lineno, frames[-1].line)


def _encodable(text: str) -> str:
    # A lone surrogate, in the user's text or in a file's name, fits into no dead letter.
    return text.encode(errors="backslashreplace").decode()


def _users(frames: Sequence[traceback.FrameSummary], code: Path) -> list[traceback.FrameSummary]:
    outside = [
        frame
        for frame in frames
        if not frame.filename.startswith("<") and not Path(frame.filename).is_relative_to(_OURS)
    ]
    users = [frame for frame in outside if _lies_in(frame.filename, code)]
    return (users or outside)[-_FRAMES_MAX:]


def _place(filename: str, line: int | None, source: str | None) -> str:
    shown = f"\n    {source.strip()}" if source and source.strip() else ""
    return f"\n  {filename}, line {line}{shown}"


def _lies_in(filename: str, code: Path) -> bool:
    path = Path(filename)
    # A virtual environment often lies in the user's directory; it is not their code.
    return path.is_relative_to(code) and "site-packages" not in path.relative_to(code).parts

"""The transforms of the discussion: comments made safe and scored, votes counted."""

import html
import re
from typing import Any, Final

import nh3
from vaderSentiment.vaderSentiment import (  # type: ignore[import-untyped]  # it has no types
    SentimentIntensityAnalyzer,
)

from actors.errors import MessageError
from actors.message import Message

TEXT_CHARS_MAX: Final = 2000
AUTHOR_CHARS_MAX: Final = 40

_TAGS: Final = {"a", "b", "strong", "i", "em", "code"}
_BLANK_LINES: Final = re.compile(r"\n(?:[ \t\r]*\n){2,}")
ENTRY_ID: Final = r"[0-9]{1,13}-[0-9]{1,10}"
"""An id as comments have it: milliseconds, of 13 digits until the year 2286, and a number."""


class Comment:
    """Turn what somebody wrote into a comment that every page can show.

    Takes `{"author": ..., "text": ...}`, or just the text; a comment from a shell is one line.
    Gives `{"id", "author", "text", "mood", "time_s"}`: author and text are safe HTML, the text with
    links, light emphasis and single blank lines at most; mood is from -1 (cross) to 1 (glad); the
    id is the entry's. A comment of which nothing is left is dropped.
    """

    def __init__(self, text_max: int = TEXT_CHARS_MAX, author_max: int = AUTHOR_CHARS_MAX) -> None:
        self._text_max = text_max
        self._author_max = author_max

    def set_up(self) -> None:
        """Read the lexicon."""
        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, message: Message) -> Message | None:
        """Return the comment, or None.

        Raises:
            MessageError: The data is not a comment.
        """
        author, text = _parts(message.data)
        # Cut before cleaning, which closes the tags that the cut leaves open.
        text = nh3.clean(
            _BLANK_LINES.sub("\n\n", text.strip())[: self._text_max],
            tags=_TAGS,
            attributes={"a": {"href"}},
            url_schemes={"http", "https"},
            link_rel="nofollow noopener noreferrer",
        )
        plain = _plain(text)
        if not plain:
            return None
        author = " ".join(_plain(author).split())[: self._author_max].strip()
        return message.replace(
            data={
                "id": message.id,
                "author": html.escape(author or "Anonymous"),
                "text": text,
                "mood": self._analyzer.polarity_scores(plain)["compound"],
                "time_s": message.queued_at_s,
            }
        )


def count_vote(message: Message) -> Message:
    """Count a vote: `{"comment": id, "vote": 1}` or -1.

    The commit adds it to the counter `<id>:up` or `<id>:down` of the channel, once, and puts the
    total under `counts`.

    Raises:
        MessageError: The data is not a vote.
    """
    data = message.data
    comment = data.get("comment") if isinstance(data, dict) else None
    vote = data.get("vote") if isinstance(data, dict) else None
    if not (isinstance(comment, str) and re.fullmatch(ENTRY_ID, comment)):
        raise MessageError("a vote names its comment: the id that the comment has")
    if vote not in (1, -1) or isinstance(vote, bool):
        raise MessageError("a vote is 1 or -1")
    way = "up" if vote == 1 else "down"
    return message.replace(
        data={"comment": comment, "vote": int(vote)}, count={f"{comment}:{way}": 1}
    )


def _parts(data: Any) -> tuple[str, str]:
    if isinstance(data, dict):
        author, text = data.get("author", ""), data.get("text")
        if isinstance(author, str) and isinstance(text, str):
            return author, text
        raise MessageError("a comment has a text, and perhaps an author, both text")
    if isinstance(data, str | int | float) and not isinstance(data, bool):
        return "", str(data)
    raise MessageError("a comment is text, or an object with author and text")


def _plain(fragment: str) -> str:
    """Return the text of an HTML fragment, without tags."""
    return html.unescape(nh3.clean(fragment, tags=set())).strip()

"""The discussion's transforms and settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import serve.demo.transforms
from actors.errors import MessageError
from actors.message import Message
from actors.settings.tree import Settings
from actors.transform.load import check
from serve.demo.transforms import Comment, count_vote

SETTINGS = Path(serve.demo.transforms.__file__).with_name("settings.yaml")


def comment(data: Any) -> Any:
    """Return what becomes of a comment."""
    subject = Comment()
    subject.set_up()
    made = subject(Message(channel="discussion:article", data=data, id="1700000000123-4"))
    return made.data if made else None


def test_settings_of_the_demo_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are valid, and their transforms load."""
    monkeypatch.syspath_prepend(SETTINGS.parent)
    settings = Settings.model_validate(yaml.safe_load(SETTINGS.read_text()))
    check(settings, SETTINGS.parent)
    assert settings.demo


def test_comment_gets_id_time_and_mood() -> None:
    """Id and time are the entry's, so that a replay gives the same."""
    made = comment({"author": "Ada", "text": "I love it, wonderful!", "id": "mine", "mood": 7})
    assert made.pop("mood") > 0.5
    assert made == {
        "id": "1700000000123-4",
        "author": "Ada",
        "text": "I love it, wonderful!",
        "time_s": 1700000000.123,
    }


def test_cross_comment_has_a_low_mood() -> None:
    """Bad words count, tags do not."""
    assert comment("<b>Horrible</b>, I hate it")["mood"] < -0.5


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("<script>alert(1)</script>hi", "hi"),
        ("<img src=x onerror=alert(1)>hi", "hi"),
        ("a < b & c", "a &lt; b &amp; c"),
        ("<b>bold", "<b>bold</b>"),
        ("<a href='javascript:alert(1)'>x</a>", '<a rel="nofollow noopener noreferrer">x</a>'),
        ("<em onclick='x()'>hi</em>", "<em>hi</em>"),
    ],
)
def test_text_is_made_safe(text: str, safe: str) -> None:
    """Scripts, handlers and strange links do not get through; emphasis does."""
    assert comment({"text": text})["text"] == safe


def test_author_is_plain_text_as_html() -> None:
    """A name has no tags, however they are written."""
    assert comment({"author": "<b>Ken</b> & Co", "text": "x"})["author"] == "Ken &amp; Co"
    assert comment({"author": "&lt;b&gt;", "text": "x"})["author"] == "&lt;b&gt;"
    assert comment({"author": " \n ", "text": "x"})["author"] == "Anonymous"


def test_long_ones_are_cut() -> None:
    """The limits hold for whatever comes past the form, too."""
    made = comment({"author": "a" * 100, "text": "<b>" + "b" * 5000})
    assert len(made["author"]) == 40
    assert len(made["text"]) == 2000 + len("</b>")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n\n\n\n\ntwo", "one\n\ntwo"),
        ("one\n \t\n\r\ntwo\n\n", "one\n\ntwo"),
        ("one\ntwo\n\nthree", "one\ntwo\n\nthree"),
    ],
)
def test_blank_lines_do_not_push_other_comments_away(text: str, shown: str) -> None:
    """One is a paragraph; more than one is one."""
    assert comment(text)["text"] == shown


@pytest.mark.parametrize("text", ["", "  ", "<script>x</script>", "<b></b>"])
def test_comment_of_which_nothing_is_left_is_dropped(text: str) -> None:
    """There is nothing to show."""
    assert comment(text) is None


def test_line_of_a_shell_is_a_comment() -> None:
    """`raywire publish` sends text, or JSON: a number, for instance."""
    assert comment("hello")["author"] == "Anonymous"
    assert comment(5)["text"] == "5"


@pytest.mark.parametrize("data", [None, True, [], {}, {"text": 1}, {"text": "x", "author": 1}])
def test_what_is_no_comment_is_refused_for_good(data: Any) -> None:
    """No retry makes a comment of it."""
    with pytest.raises(MessageError):
        comment(data)


def vote(data: Any) -> Message:
    """Return what becomes of a vote."""
    return count_vote(Message(channel="votes:article", data=data))


def test_vote_counts_for_its_comment() -> None:
    """The commit does the adding; nothing else of the data goes on."""
    up = vote({"comment": "17-0", "vote": 1, "more": "x"})
    assert (up.data, up.count) == ({"comment": "17-0", "vote": 1}, {"17-0:up": 1})
    assert vote({"comment": "17-0", "vote": -1}).count == {"17-0:down": 1}


@pytest.mark.parametrize(
    "data",
    [
        "x",
        {},
        {"comment": 5, "vote": 1},
        {"comment": "17-0:up", "vote": 1},
        {"comment": "9999999999999999-0", "vote": 1},
        {"comment": "٣-٣", "vote": 1},
        {"comment": "17-0", "vote": 2},
        {"comment": "17-0", "vote": True},
        {"comment": "17-0", "vote": "1"},
        {"comment": "17-0"},
    ],
)
def test_what_is_no_vote_is_refused_for_good(data: Any) -> None:
    """A counter for anything would fill Valkey."""
    with pytest.raises(MessageError):
        vote(data)

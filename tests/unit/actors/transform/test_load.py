"""Loading: what a user may write, and what they are told when it does not load."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.errors import SettingsError
from actors.message import Message
from actors.settings.tree import Settings, TransformSettings
from actors.transform.errors import one_line, users_frames, users_line, users_traceback
from actors.transform.load import Form, check, compile_pattern, load

Write = Callable[[str], str]
MESSAGE = Message(channel="news", data={"n": 1}, id="1000-0")


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading puts directories on `sys.path`: take them off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Write:
    """Return what writes a module of its own name, as modules are loaded once, and returns it."""

    def write(source: str) -> str:
        name = f"mine_{request.node.name.partition('[')[0]}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def refusal(use: str, code: Path, **options: object) -> str:
    """Return what a user is told."""
    with pytest.raises(SettingsError) as caught:
        load(TransformSettings(use=use, options=options), code)
    return str(caught.value)


def test_function_takes_its_options(write: Write, tmp_path: Path) -> None:
    """Options of the settings are bound to the function as keywords."""
    name = write(
        "def up(message, *, by=1):\n    return message.replace(data=message.data['n'] + by)\n"
    )
    transform = load(TransformSettings(use=f"{name}:up", options={"by": 5}), tmp_path)
    assert transform.call(MESSAGE).data == 6
    assert (transform.form, transform.is_async, transform.set_up) == (Form.EACH, False, None)


def test_class_is_constructed_with_options_and_not_set_up(write: Write, tmp_path: Path) -> None:
    """The constructor takes the options; set_up is left to the transformer."""
    name = write(
        "class Up:\n"
        "    def __init__(self, *, by): self.by = by\n"
        "    def set_up(self): self.ready = True\n"
        "    def __call__(self, message): return message.replace(data=[self.by, self.ready])\n"
        "    def close(self): self.ready = False\n"
    )
    transform = load(TransformSettings(use=f"{name}:Up", options={"by": 2}), tmp_path)
    assert transform.set_up is not None
    assert transform.close is not None
    transform.set_up()
    assert transform.call(MESSAGE).data == [2, True]


def test_batch_form_is_seen(write: Write, tmp_path: Path) -> None:
    """A class with `batch` gets lists."""
    name = write("class Many:\n    async def batch(self, messages): return messages\n")
    transform = load(TransformSettings(use=f"{name}:Many"), tmp_path)
    assert (transform.form, transform.is_async) == (Form.BATCH, True)


@pytest.mark.parametrize("kind", ["function", "object", "generator"])
def test_async_is_seen(write: Write, tmp_path: Path, kind: str) -> None:
    """Async functions, async __call__ and async generators are awaited."""
    name = write(
        "async def function(message): return message\n"
        "async def generator(message):\n    yield message\n    yield message\n"
        "class Asker:\n    async def __call__(self, message): return message\n"
        "object = Asker()\n"
    )
    transform = load(TransformSettings(use=f"{name}:{kind}"), tmp_path)
    assert transform.is_async

    async def ask() -> object:
        return await transform.call(MESSAGE)

    assert asyncio.run(ask()) == ([MESSAGE, MESSAGE] if kind == "generator" else MESSAGE)


def test_unknown_module_is_named_with_the_place_and_a_guess(write: Write, tmp_path: Path) -> None:
    """No such module: where it was looked for, and what is there of a like name."""
    name = write("")
    text = refusal(f"{name[:-1]}:clean", tmp_path)
    assert f"did you mean {name!r}?" in text
    assert str(tmp_path) in text


def test_unknown_directory_is_named(tmp_path: Path) -> None:
    """A `code` that does not exist is said to be so."""
    assert f"{tmp_path}/gone does not exist" in refusal("a:b", tmp_path / "gone")


def test_unknown_name_lists_what_the_module_has(write: Write, tmp_path: Path) -> None:
    """No such name: what there is, without what was imported."""
    name = write("from pathlib import Path\ndef clean(message): ...\nclass Mood: ...\n")
    text = refusal(f"{name}:claen", tmp_path)
    assert "did you mean 'clean'?" in text
    assert f"{name}.py has clean, Mood" in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("import json\nimport nowhere_at_all\n", "line 2\n    import nowhere_at_all"),
        ("limit = 1\nlimit = 1 / 0  # here\n", "line 2\n    limit = 1 / 0  # here"),
        ("def clean(message:\n    pass\n", "line 1\n    def clean(message:"),
        ("import json\njson.loads('{')\n", "line 2\n    json.loads('{')"),
        ("import sys\nsys.exit(3)\n", "line 2\n    sys.exit(3)"),
    ],
    ids=["import", "error", "syntax", "library", "exit"],
)
def test_error_at_import_shows_the_users_line(
    tmp_path: Path, source: str, shown: str, request: pytest.FixtureRequest
) -> None:
    """The file, the line and its source are the user's, whoever raised."""
    name = f"mine_broken_{request.node.callspec.id}"
    (tmp_path / f"{name}.py").write_text(source)
    text = refusal(f"{name}:clean", tmp_path)
    assert f"{tmp_path}/{name}.py, {shown}" in text
    assert "importlib" not in text


def test_option_that_does_not_fit_shows_what_is_taken(write: Write, tmp_path: Path) -> None:
    """A misspelt option: a guess, the signature, and where it stands."""
    name = write("\ndef up(message, *, limit: int = 3): ...\n")
    text = refusal(f"{name}:up", tmp_path, limt=4)
    assert "did you mean 'limit'?" in text
    assert "it takes (message, *, limit: int = 3)" in text
    assert f"{name}.py, line 2\n    def up(message, *, limit: int = 3): ..." in text


def test_options_of_a_built_in_are_shown_without_our_code(tmp_path: Path) -> None:
    """The user has no line to mend there, and a mark for "not given" is none to copy."""
    text = refusal("filter", tmp_path)
    assert "it takes (field: str, *, exists: bool | None = None, equals: Any = ..., " in text
    assert " at 0x" not in text
    assert "builtin.py" not in text


def test_misspelt_option_is_named_where_it_must_be_given(write: Write, tmp_path: Path) -> None:
    """What is missing follows from what is misspelt."""
    name = write("def up(message, limit): ...\n")
    text = refusal(f"{name}:up", tmp_path, limt=4)
    assert "it has no 'limt': did you mean 'limit'?" in text
    assert "missing" not in text


def test_missing_option_is_named(write: Write, tmp_path: Path) -> None:
    """An option without a default must be given."""
    name = write("def up(message, limit): ...\n")
    assert "missing a required argument: 'limit'" in refusal(f"{name}:up", tmp_path)


def test_function_that_takes_no_message_is_refused(write: Write, tmp_path: Path) -> None:
    """The first argument is the message."""
    name = write("def up(): ...\n")
    assert "it cannot take a message" in refusal(f"{name}:up", tmp_path)


def test_value_and_class_without_call_are_refused(write: Write, tmp_path: Path) -> None:
    """What cannot be called is no transform."""
    name = write("limit = 3\nclass Up: ...\n")
    assert "it is an object of type int, not a function or a class" in refusal(
        f"{name}:limit", tmp_path
    )
    text = refusal(f"{name}:Up", tmp_path)
    assert "neither __call__(self, message) nor batch(self, messages)" in text
    assert "line 2" in text


def test_constructor_that_raises_shows_its_line(write: Write, tmp_path: Path) -> None:
    """A class may check its options; what it says is shown."""
    name = write(
        "class Up:\n    def __init__(self, n):\n        raise ValueError(f'{n} is odd')\n"
        "    def __call__(self, message): ...\n"
    )
    text = refusal(f"{name}:Up", tmp_path, n=3)
    assert "ValueError: 3 is odd" in text
    assert "line 3" in text


def test_unknown_builtin_gets_a_guess(tmp_path: Path) -> None:
    """A bare name is a built-in's."""
    text = refusal("fliter", tmp_path)
    assert "did you mean 'filter'?" in text
    assert "write module:name" in text


def test_check_tells_all_that_is_wrong(tmp_path: Path) -> None:
    """One look shows every error of every stage."""
    settings = Settings.model_validate(
        {
            "stages": [
                {"name": "one", "transforms": [{"use": "nope"}, {"use": "conflate"}]},
                {"name": "two", "transforms": [{"use": "no_such_module:f"}]},
            ]
        }
    )
    with pytest.raises(SettingsError, match=r"(?s)stage one: nope.*stage two: no_such_module:f"):
        check(settings, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "channel", "fits"),
    [
        ("*", "a:b:c", True),
        ("news:*", "news:", True),
        ("news:*", "news", False),
        ("*:eu", "news:de:eu", True),
        ("new?", "news", True),
        ("new?", "new", False),
        ("News", "news", False),
        ("a.b", "axb", False),
        ("a[bc]", "ab", False),
        ("*a*b*", "xxabaxbx", True),
        ("*a?*a", "aaxa", True),
        ("*ab*ab", "xab", False),
        ("*a" * 100 + "b", "a" * 255, False),
    ],
)
def test_pattern(pattern: str, channel: str, fits: bool) -> None:
    """`*` is any text, `?` one character, all else stands for itself; many take no time."""
    assert bool(compile_pattern(pattern)(channel)) is fits


def test_error_whose_text_fails_is_still_shown() -> None:
    """A user's exception may be broken itself."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert one_line(BrokenError()) == "BrokenError: (its text cannot be had: RuntimeError)"


def test_traceback_of_endless_recursion_is_short(write: Write, tmp_path: Path) -> None:
    """Some frames of a thousand like ones are enough."""
    name = write("def up(message):\n    return up(message)\n")
    transform = load(TransformSettings(use=f"{name}:up"), tmp_path)
    with pytest.raises(RecursionError) as caught:
        transform.call(MESSAGE)
    assert len(users_frames(caught.value, tmp_path)) == 10
    assert users_traceback(caught.value, tmp_path).endswith("maximum recursion depth exceeded")
    assert users_line(caught.value, tmp_path).endswith("return up(message)")

"""The user's functions are found and looked at before anything starts."""

import threading
from pathlib import Path

import pytest

from actors.errors import SettingsError
from actors.settings.authorise import AuthoriseSettings
from actors.settings.tree import Settings
from serve.authorise import ConnectRequest, RpcRequest
from serve.authorise.load import check, load, names_functions
from serve.system.code_check import check_code

MODULE = """
def connect(request):
    ...

async def rpc(request):
    ...

class Callable:
    async def __call__(self, request): ...

made = Callable()
number = 5

def takes_two(request, other): ...
"""


@pytest.fixture
def code(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A user's directory; the module's name is new each time, as Python remembers them."""
    (tmp_path / f"{module(request.node.name)}.py").write_text(MODULE)
    return tmp_path


def module(test: str) -> str:
    return "rules_" + "".join(c if c.isalnum() else "_" for c in test)


def test_functions_are_found_by_what_they_take(code: Path, request: pytest.FixtureRequest) -> None:
    """Plain, async, and objects that can be called; what is not named is not there."""
    name = module(request.node.name)
    found = load(AuthoriseSettings(connect=f"{name}:connect", rpc=f"{name}:rpc"), code)
    assert {kind: function.is_async for kind, function in found.items()} == {
        ConnectRequest: False,
        RpcRequest: True,
    }
    assert load(AuthoriseSettings(rpc=f"{name}:made"), code)[RpcRequest].is_async


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("connekt", "has no 'connekt': did you mean 'connect'?"),
        ("number", "it is an object of int, not a function"),
        ("Callable", "it is a class, not a function"),
        ("takes_two", "it cannot take a request"),
    ],
)
def test_what_cannot_be_asked_is_an_error(
    code: Path, request: pytest.FixtureRequest, name: str, told: str
) -> None:
    """With the name of the setting."""
    use = f"{module(request.node.name)}:{name}"
    with pytest.raises(SettingsError) as raised:
        load(AuthoriseSettings(publish=use), code)
    assert str(raised.value).startswith(f"authorise.publish: {use}: ")
    assert told in str(raised.value)


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    """One line each."""
    settings = Settings(authorise=AuthoriseSettings(connect="none_a:f", rpc="none_b:f"))
    with pytest.raises(SettingsError) as raised:
        check(settings, tmp_path)
    assert "authorise.connect: none_a:f: there is no module" in str(raised.value)
    assert "authorise.rpc: none_b:f: there is no module" in str(raised.value)


def test_error_at_import_shows_the_users_line(tmp_path: Path) -> None:
    """Also in the fresh process that a reload tries the code in."""
    (tmp_path / "rules_broken.py").write_text("x = 1\ny = x / 0\n")
    settings = Settings(code=tmp_path, authorise=AuthoriseSettings(rpc="rules_broken:f"))
    with pytest.raises(SettingsError, match=r"(?s)ZeroDivisionError.*rules_broken.py, line 2"):
        check(settings, tmp_path)
    with pytest.raises(SettingsError, match=r"(?s)ZeroDivisionError.*rules_broken.py, line 2"):
        check_code(settings, threading.Event(), within_s=60)


def test_modules_count_as_code(tmp_path: Path) -> None:
    """So a reload notices that they have changed."""
    (tmp_path / "rules_seen.py").write_text("def f(request): ...\n")
    settings = Settings(code=tmp_path, authorise=AuthoriseSettings(rpc="rules_seen:f"))
    assert str(tmp_path / "rules_seen.py") in check_code(settings, threading.Event(), within_s=60)


def test_limits_alone_name_no_function() -> None:
    """Edges need not begin anew for code that they do not run."""
    assert not names_functions(AuthoriseSettings(threads=2))
    assert names_functions(AuthoriseSettings(publish="rules:f"))

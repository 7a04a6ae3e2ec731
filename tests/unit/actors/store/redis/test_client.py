"""URLs of servers: what is refused, and what is shown of them. tests/integration/ has the rest."""

import pytest

from actors.errors import SettingsError
from actors.store.redis.client import parse_url, without_password


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:abc",
        "redis://localhost:99999",
        "redis://[::1",
        "redis://localhost/abc",
        "redis://localhost/\u00b2",
        "redis+cluster://localhost:abc",
        "unix:///tmp/socket?db=abc",
        "redis+sentinel://h:1/service/abc",
        "redis+sentinel://h:1",
        "redis+sentinel://h:\u00b2/service",
        "redis+sentinel://h:99999/service",
        "redis+sentinel://[::1/service",
        "http://localhost",
    ],
)
def test_url_that_cannot_be_read_is_refused_with_the_remedy(url: str) -> None:
    """In one line, which names the setting; never as a ValueError of the library."""
    with pytest.raises(SettingsError, match=r"^redis\.url: ") as caught:
        parse_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hid/den@h:1/0",
        "redis://:12/hidden@h:1/0",
        "redis+sentinel://:hid/den@h:1/service",
        "redis+sentinel://:hid/den@h:1/0",
    ],
)
def test_piece_of_a_password_is_in_no_error(url: str) -> None:
    """A slash in it ends what is taken for host and port."""
    with pytest.raises(SettingsError) as caught:
        parse_url(url)
    assert "hid" not in str(caught.value)
    assert "den" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentinels"),
    [
        ("redis://h", []),
        ("rediss://user:p%2Fw@h:1/2", []),
        ("redis://[::1]:1/", []),
        ("redis+cluster://h:1", []),
        ("unix:///tmp/socket?db=1", []),
        ("redis+sentinel://:pw@a:1,b:2/service/3", [("a", 1), ("b", 2)]),
    ],
)
def test_url_that_is_ours_passes(url: str, sentinels: list[tuple[str, int]]) -> None:
    assert parse_url(url) == (url.partition("://")[0], sentinels)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://user:secret@h:1/0", "redis://user:***@h:1/0"),
        ("redis://:se@cret@h:1", "redis://:***@h:1"),
        ("redis://h:1?password=secret", "redis://h:1?password=***"),
        ("rediss://h:1/0?db=1&password=se@cret&a=b", "rediss://h:1/0?db=1&password=***&a=b"),
        ("rediss://h:1?ssl_password=secret", "rediss://h:1?ssl_password=***"),
        ("redis://u:secret@h:1?Password=secret", "redis://u:***@h:1?Password=***"),
    ],
)
def test_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """Wherever it stands."""
    assert without_password(url) == shown

"""How a client came."""

from serve.session.approach import joined


def test_headers_are_joined_by_name() -> None:
    """Names in lower case; values in their order."""
    given = [("Cookie", "a=1"), ("X-Forwarded-For", "1"), ("x-forwarded-for", "2")]
    assert joined(given) == {"cookie": "a=1", "x-forwarded-for": "1, 2"}

"""A dead letter from its death to its delivery, in a running system."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.changing_site import Site

pytestmark = pytest.mark.ray


def wait_for(look: Callable[[], Any]) -> Any:
    """Return what a look gives as soon as it is something."""
    end_s = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return found


def test_message_that_died_arrives_after_its_replay(site: Site) -> None:
    """It dies, is listed with the reason, the cause is mended, it is replayed and delivered."""
    failing = site.system
    died = failing.api("publish", channel="news", data={"n": 1}, idempotency_key="once")
    assert died["error"]["code"] == 422

    listed = failing.raywire("dead", "list", "--stage", "one")
    assert listed.returncode == 0, listed.stderr
    letter = json.loads(listed.stdout)
    assert (letter["channel"], letter["data"], letter["attempts"]) == ("news", {"n": 1}, 2)
    assert letter["error"] == "LookupError: the service is away"
    assert "my_service.py" in letter["traceback"]
    assert json.loads(failing.raywire("status").stdout)["dead_letters"] == 1

    # Not mended yet: it goes through the transform again, and dies again.
    assert failing.raywire("dead", "replay", letter["id"]).returncode == 0
    (second,) = wait_for(lambda: failing.api("dead_list")["result"]["letters"])
    assert second["id"] != letter["id"]

    site.mended.touch()
    replayed = failing.raywire("dead", "replay", "--channel", "ne*")
    assert (replayed.returncode, json.loads(replayed.stdout)["replayed"]) == (0, 1)
    history: dict[str, Any] = {"channel": "news", "limit": 10}
    (publication,) = wait_for(lambda: failing.api("history", **history)["result"]["publications"])
    assert publication == {"offset": 1, "data": {"n": 1, "enriched": True}}
    assert failing.api("dead_list")["result"] == {"letters": [], "total": 0}

    # Its idempotency key is used up now, and was not before.
    again = failing.api("publish", channel="news", data={"n": 2}, idempotency_key="once")
    assert again["result"]["offset"] == 1

"""`raywire dead` as a process, on a real Valkey."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from actors.message import FIRST_ID, DeadLetter
from actors.partition import Keys, partition_of
from actors.store.interface import Claim, Commit
from actors.store.redis.pipeline import RedisLedger
from tests.conftest import raywire

pytestmark = pytest.mark.redis

Dead = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def dead(valkey_url: str, tmp_path: Path) -> Dead:
    """Run `raywire dead` against a Valkey that keeps letters of three channels."""
    ledger = RedisLedger(valkey_url, Keys())
    for number, data in enumerate(('{"n":1}', "[2]", "not json")):
        channel = f"news-{number}"
        p = partition_of(channel, 8)
        letter = DeadLetter(p, f"1-{number}", channel, data, "", "clean", "no", "", 3, 5.0)
        claim = Claim(p, FIRST_ID, letter.id)
        assert ledger.commit([Commit(p, [claim], [], [], [letter], own=True)])[0].done
    ledger.close()

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return raywire("dead", *args, "--redis", valkey_url, "--data", str(tmp_path / "data"))

    return run


def lines(done: "subprocess.CompletedProcess[str]") -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def queued(url: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        found: Any = [client.xrange(Keys().queue(p)) for p in range(8)]
    return [fields[b"d"] for entries in found for _, fields in entries]


def test_letters_are_listed_shown_replayed_and_dropped(dead: Dead, valkey_url: str) -> None:
    """Ids that one command prints are what the others take."""
    ids = {letter["channel"]: letter["id"] for letter in lines(dead("list"))}
    assert set(ids) == {"news-0", "news-1", "news-2"}
    assert [x["id"] for x in lines(dead("list", "--channel", "*-1"))] == [ids["news-1"]]
    assert lines(dead("show", ids["news-0"]))[0]["data"] == {"n": 1}

    assert lines(dead("replay", ids["news-0"]))[0]["replayed"] == 1
    assert queued(valkey_url) == [b'{"n":1}']
    again = dead("replay", ids["news-0"])
    assert (again.returncode, queued(valkey_url)) == (4, [b'{"n":1}'])

    rest = dead("replay", "--all")
    assert rest.returncode == 4
    assert f"{ids['news-2']} cannot be replayed" in rest.stderr
    assert sorted(queued(valkey_url)) == [b"[2]", b'{"n":1}']

    refused = dead("drop", "--all")
    assert (refused.returncode, len(lines(dead("list")))) == (2, 1)
    assert lines(dead("drop", "--all", "--yes"))[0]["dropped"] == 1
    assert lines(dead("list")) == []

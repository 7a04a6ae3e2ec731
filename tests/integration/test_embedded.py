"""The embedded Valkey: what it keeps when it is killed, and that it comes back."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from actors.partition import Keys
from actors.settings.tree import QueueSettings, Settings
from actors.store.embedded import EmbeddedValkey, Flusher
from serve.system.local_redis import LocalRedis

pytestmark = pytest.mark.redis


def client(valkey: EmbeddedValkey) -> redis.Redis:
    """Return a client that does not try again."""
    found: redis.Redis = redis.Redis.from_url(
        valkey.url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=10
    )
    return found


def until(done: Callable[[], object]) -> None:
    """Look again and again until something holds, for half a minute."""
    end_s = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def answers(valkey: EmbeddedValkey) -> bool:
    """Whether it can be used."""
    try:
        with client(valkey) as admin:
            return bool(admin.ping())
    except redis.exceptions.RedisError:
        return False


def write_until_it_ends(writer: redis.Redis) -> int:
    """Append entries and return how many were answered."""
    answered = 0
    try:
        while True:
            pipeline = writer.pipeline(transaction=False)
            for _ in range(50):
                pipeline.xadd("queue", {"d": b"x" * 200})
            pipeline.execute()
            answered += 50
    except redis.exceptions.ConnectionError:
        return answered


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_answered_writes_survive_sigkill(
    tmp_path: Path, appendfsync: Literal["everysec", "always"]
) -> None:
    """Killed while it writes as fast as it can, again and again: all that it answered is there.

    Valkey's own `everysec` would not promise it: it answers before it writes while a flush is slow.
    """
    valkey = EmbeddedValkey(tmp_path, "secret", appendfsync=appendfsync)
    answered = 0
    for _ in range(4):
        valkey.start()
        killer = threading.Timer(0.3, os.kill, (valkey.pid, signal.SIGKILL))
        with client(valkey) as writer:
            assert writer.config_get("appendfsync") == {
                "appendfsync": "always" if appendfsync == "always" else "no"
            }
            assert writer.xlen("queue") >= answered
            answered = writer.xlen("queue")
            killer.start()
            answered += write_until_it_ends(writer)
        killer.join()
    valkey.start()
    with client(valkey) as reader:
        assert reader.xlen("queue") >= answered
    valkey.stop()


def test_flusher_flushes_what_has_changed(tmp_path: Path) -> None:
    """Once: a file that has not grown is left alone, and one that is gone is no error."""
    first, second = tmp_path / "a.1.incr.aof", tmp_path / "a.2.incr.aof"
    (tmp_path / "a.1.base.rdb").write_text("not ours")
    first.write_text("a")
    flusher = Flusher(tmp_path)
    assert flusher.flush() == [first]
    assert flusher.flush() == []
    second.write_text("b")
    first.write_text("ab")
    assert flusher.flush() == [first, second]
    first.unlink()
    assert flusher.flush() == []
    flusher.stop()


def test_flusher_works_by_itself(tmp_path: Path) -> None:
    """From its own thread, again and again, also after a flush that failed."""
    calls: list[int] = []

    class Failing(Flusher):
        def flush(self) -> list[Path]:
            calls.append(1)
            raise OSError("no space")

    flusher = Failing(tmp_path, every_s=0.01)
    flusher.start()
    until(lambda: len(calls) > 2)
    flusher.stop()


@contextmanager
def looked_after(system: LocalRedis) -> Iterator[EmbeddedValkey]:
    """The Valkey of a system, kept alive as `raywire up` does."""
    system.start(lambda _: None)
    assert system.valkey is not None
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.02):
            system.keep()

    watching = threading.Thread(target=keep)
    watching.start()
    try:
        yield system.valkey
    finally:
        stop.set()
        watching.join()
        system.stop(lambda _: None)


@pytest.fixture
def system(tmp_path: Path) -> LocalRedis:
    """The Valkey of a system that is not started."""
    settings = Settings(data=tmp_path, queue=QueueSettings(partitions=3))
    return LocalRedis(settings, "secret")


def test_path_may_have_blanks_and_quotes(tmp_path: Path) -> None:
    """Valkey's own file of settings could not hold it."""
    data = tmp_path / 'my project\'s "data"'
    for starts in (1, 2):
        valkey = EmbeddedValkey(data, "secret")
        valkey.start()
        assert valkey.is_running()
        with client(valkey) as writer:
            assert writer.incr("starts") == starts
        valkey.stop()
    assert (data / "appendonlydir").is_dir()


def test_server_that_has_died_can_be_stopped(tmp_path: Path) -> None:
    """As when a system ends because of it."""
    valkey = EmbeddedValkey(tmp_path, "secret")
    valkey.start()
    os.kill(valkey.pid, signal.SIGKILL)
    until(lambda: not valkey.is_running())
    valkey.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_that_ends_is_started_again(system: LocalRedis, number: signal.Signals) -> None:
    """At the same address with the same data, whether it crashed or somebody ended it."""
    with looked_after(system) as valkey:
        url, pid = valkey.url, valkey.pid
        with client(valkey) as writer:
            writer.set("kept", "yes")
        os.kill(pid, number)
        until(lambda: valkey.is_running() and valkey.pid != pid and answers(valkey))
        assert valkey.url == url
        with client(valkey) as reader:
            assert reader.get("kept") == b"yes"


def test_server_that_dies_again_and_again_is_waited_for(
    system: LocalRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer each time, and what is known of why is told."""
    with looked_after(system) as valkey:
        starts, pids = [time.monotonic()], {valkey.pid}
        for _ in range(4):
            os.kill(valkey.pid, signal.SIGKILL)
            until(lambda: valkey.is_running() and valkey.pid not in pids)
            pids.add(valkey.pid)
            starts.append(time.monotonic())
    # Half of 0.2, 0.4 and 0.8 s at least: one that starts well does not end the waiting.
    assert starts[-1] - starts[1] > 0.7
    deaths = [record for record in caplog.records if record.message.startswith("valkey died")]
    assert len(deaths) == 4
    assert all(vars(record)["why"] for record in deaths)


def test_start_that_fails_is_tried_again(system: LocalRedis, tmp_path: Path) -> None:
    """A manifest that is away for a while is a reason to wait, not to end the whole system."""
    manifest = tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    with looked_after(system) as valkey:
        pid = valkey.pid
        manifest.rename(tmp_path / "aside")
        manifest.write_text("not a manifest\n")
        os.kill(pid, signal.SIGKILL)
        log = tmp_path / "valkey" / "valkey.log"
        until(lambda: "Invalid AOF manifest" in log.read_text(errors="replace"))
        (tmp_path / "aside").rename(manifest)
        until(lambda: valkey.is_running() and valkey.pid != pid and answers(valkey))


def test_emptied_server_gets_its_layout_again(
    system: LocalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written from then on is in so many partitions, and a next start must know."""
    monkeypatch.setattr("serve.system.local_redis._LAYOUT_EVERY_S", 0.05)
    with looked_after(system) as valkey, client(valkey) as admin:
        assert admin.hget(Keys().layout, "partitions") == b"3"
        admin.flushall()
        until(lambda: admin.hget(Keys().layout, "partitions") == b"3")

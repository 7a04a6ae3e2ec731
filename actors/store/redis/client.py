"""Connections to Valkey or Redis, their errors in our words, and the scripts.

Retries are the callers' business, who know what bears repeating: the client library's own are off.
"""

import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgpack  # type: ignore[import-untyped] # has no types
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.backoff
import redis.cluster
import redis.exceptions
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.retry import Retry

from actors.errors import SettingsError, UnavailableError
from actors.store.redis.turns import InTurn

SyncClient = redis.Redis | redis.cluster.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster

_SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
    "rediss+cluster",
)  # fmt: skip


_PASSWORD_OPTION: Final = re.compile(r"([?&](?:ssl_)?password=)[^&#]*", re.IGNORECASE)

_TROUBLES: Final[tuple[tuple[type[Exception], str], ...]] = (
    # Subclasses first: most of these are `ConnectionError`s to the library.
    (redis.exceptions.BusyLoadingError, "is loading its data"),
    (redis.exceptions.AuthenticationError, "refuses our password"),
    (redis.exceptions.MaxConnectionsError, "has no connection left for us"),
    (redis.exceptions.ReadOnlyError, "is a read-only replica"),
    (redis.exceptions.OutOfMemoryError, "is out of memory"),
    (redis.exceptions.TimeoutError, "did not answer in time"),
    (redis.exceptions.ConnectionError, "cannot be reached"),
    (OSError, "cannot be reached"),
)
_REFUSALS: Final = {
    "MISCONF": "cannot write to its disk",
    "NOREPLICAS": "has too few replicas",
    "MASTERDOWN": "has lost its primary",
    "BUSY": "is busy with a script",
    "UNBLOCKED": "is failing over",
    "CLUSTERDOWN": "has lost a part of its cluster",
}
"""The first word of an error reply, where the library has no class for it."""


def pack(value: Any) -> bytes:
    """Encode for Lua's cmsgpack, which knows neither `bin` nor 8-bit `str` headers."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def without_password(url: str) -> str:
    """Return a URL that may be shown and logged."""
    url = _PASSWORD_OPTION.sub(r"\1***", url)
    head, at, tail = url.rpartition("@")
    scheme, _, credentials = head.partition("://")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{':***' if ':' in credentials else ''}@{tail}"


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn the library's errors into ours.

    Raises:
        UnavailableError: Anything that may pass: the server is away, loading, full, failing over.
            The text says which.
    """
    try:
        yield
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        text = str(error).rstrip(".") or type(error).__name__
        raise UnavailableError(
            f"Valkey at {without_password(url)} {_trouble(error)}: {text}"
        ) from error


def _trouble(error: Exception) -> str:
    """Say in a few words which trouble it is; the first that fits."""
    for kind, words in _TROUBLES:
        if isinstance(error, kind):
            return words
    return _REFUSALS.get(str(error).partition(" ")[0], "refuses a command")


def sync_client(url: str, *, timeout_s: float) -> SyncClient:
    """Make a client for actors of one thread. It connects with its first command.

    Raises:
        SettingsError: The URL is not one of ours.
    """
    options = _options(timeout_s, Retry(redis.backoff.NoBackoff(), 0))
    scheme, hosts = parse_url(url)
    if scheme.endswith("+sentinel"):
        service, login = _sentinel(url, scheme)
        sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=options
        )
        master: _OverSentinel = sentinel.master_for(  # type: ignore[no-untyped-call]
            service, _OverSentinel, **login, **options
        )
        master.watchers = sentinel
        return master
    if scheme.endswith("+cluster"):
        del options["retry"]
        return _LazyCluster(_plain(url), options)
    return redis.Redis.from_url(url, **options)


def async_client(url: str, *, timeout_s: float) -> AsyncClient:
    """Make a client for an event loop, whose calls wait for their turn (`InTurn`).

    What blocks needs a client of its own: it keeps its turn while it waits. See `sync_client`.
    """
    options = _options(timeout_s, AsyncRetry(redis.backoff.NoBackoff(), 0))
    scheme, hosts = parse_url(url)
    if scheme.endswith("+sentinel"):
        service, login = _sentinel(url, scheme)
        sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=options
        )
        master: _AsyncOverSentinel = sentinel.master_for(
            service, _AsyncOverSentinel, **login, **options
        )
        master.watchers = sentinel
        return master
    if scheme.endswith("+cluster"):
        del options["retry"]
        return _AsyncCluster.from_url(_plain(url), **options)
    return _AsyncPlain.from_url(url, **options)


class _LazyCluster(redis.cluster.RedisCluster):
    """Connects with the first command, where the library's does so when made.

    So an actor may begin while the cluster is away. What failed is tried again by the next command.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        # Not the library's constructor: that is what connects. All its commands are one call here.
        self._url = url
        self._options = options
        self._making = threading.Lock()
        self._made: redis.cluster.RedisCluster | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with self._making:
            if self._made is None:
                self._made = redis.cluster.RedisCluster.from_url(self._url, **self._options)
        return self._made.execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class _OverSentinel(redis.Redis):
    """Closes its connections to the Sentinels, too, which the library leaves open."""

    watchers: redis.sentinel.Sentinel

    def close(self) -> None:
        super().close()
        for each in self.watchers.sentinels:
            each.close()


class _AsyncPlain(InTurn, redis.asyncio.Redis):  # type: ignore[misc] # the library's own bases do not agree
    """One server."""


class _AsyncCluster(InTurn, redis.asyncio.cluster.RedisCluster):  # type: ignore[misc] # the library's own bases do not agree
    """A Cluster."""


class _AsyncOverSentinel(_AsyncPlain):
    """See `_OverSentinel`."""

    watchers: redis.asyncio.sentinel.Sentinel

    async def aclose(
        self,
        close_connection_pool: bool | None = None,  # noqa: FBT001 - its signature
    ) -> None:
        await super().aclose(close_connection_pool)
        await self.watchers.aclose()


def is_cluster(url: str) -> bool:
    """Return whether keys of different partitions may lie on different servers."""
    return url.partition("://")[0].endswith("+cluster")


class Script:
    """A script by name, run by its digest; sent again where the server has forgotten it."""

    def __init__(self, name: str) -> None:
        self.text = files("actors.store.redis").joinpath("lua", f"{name}.lua").read_text()
        self._sha = ""

    def run(self, client: SyncClient, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it on a synchronous client."""
        if not self._sha:
            self._sha = str(client.script_load(self.text))
        try:
            return client.evalsha(self._sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            self._sha = str(client.script_load(self.text))
            return client.evalsha(self._sha, len(keys), *keys, *args)

    def run_all(
        self, client: SyncClient, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Run it several times in one round trip (a Cluster: one after the other)."""
        if len(calls) == 1 or isinstance(client, redis.cluster.RedisCluster):
            return [self.run(client, keys, args) for keys, args in calls]
        if not self._sha:
            self._sha = str(client.script_load(self.text))
        try:
            return self._pipelined(client, calls)
        except redis.exceptions.NoScriptError:
            self._sha = str(client.script_load(self.text))
            return self._pipelined(client, calls)

    def _pipelined(
        self, client: redis.Redis, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for keys, args in calls:
            pipeline.evalsha(self._sha, len(keys), *keys, *args)
        results: list[Any] = pipeline.execute()
        return results

    async def run_async(self, client: AsyncClient, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it on an asynchronous client."""
        evalsha: Callable[..., Awaitable[Any]] = client.evalsha
        if not self._sha:
            self._sha = str(await client.script_load(self.text))
        try:
            return await evalsha(self._sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            self._sha = str(await client.script_load(self.text))
            return await evalsha(self._sha, len(keys), *keys, *args)


def check_server(url: str, *, timeout_s: float) -> None:
    """Ask the server for a sign of life.

    Raises:
        SettingsError: The URL, the password or the permissions are wrong.
        UnavailableError: It does not answer.
    """
    shown = without_password(url)
    client = sync_client(url, timeout_s=timeout_s)
    try:
        with translated(url):
            client.ping()
    except UnavailableError as error:
        refused = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
        if isinstance(error.__cause__, refused) or "NOAUTH" in str(error):
            raise SettingsError(
                f"redis.url: {shown} refuses us ({error.__cause__}): check user and password"
            ) from error
        raise UnavailableError(
            f"{error}: start the server, or set redis.url (--redis) to one that runs"
        ) from error
    finally:
        client.close()


def check_layout(url: str, layout_key: str, *, partitions: int, timeout_s: float) -> None:
    """Fix the number of partitions for the life of the data.

    Raises:
        SettingsError: The data was made with another number.
        UnavailableError: The server does not answer.
    """
    client = sync_client(url, timeout_s=timeout_s)
    try:
        with translated(url):
            client.hsetnx(layout_key, "partitions", str(partitions))
            kept = client.hget(layout_key, "partitions")
    finally:
        client.close()
    found = int(kept.decode() if isinstance(kept, bytes) else str(kept))
    if found != partitions:
        raise SettingsError(
            f"queue.partitions: {partitions}, but the data has {found}: set it to {found}, "
            "or use another `app` or another server for new data"
        )


def parse_url(url: str) -> tuple[str, list[tuple[str, int]]]:
    """Return the scheme, and the Sentinels where it is theirs.

    Raises:
        SettingsError: The URL is not one of ours.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise SettingsError(
            f"redis.url: {without_password(url)!r} is not a URL we know: use redis://HOST:PORT, "
            "rediss://, unix://, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or "
            "redis+cluster://HOST:PORT"
        )
    if not scheme.endswith("+sentinel"):
        _check_server_url(url, scheme)
        return scheme, []
    _sentinel(url, scheme)
    hosts = []
    for address in urlsplit(url).netloc.rpartition("@")[2].split(","):
        host, _, port = address.rpartition(":")
        if not host or not _is_port(port):
            raise SettingsError("redis.url: write each Sentinel as HOST:PORT, a port below 65536")
        hosts.append((host, int(port)))
    return scheme, hosts


def _check_server_url(url: str, scheme: str) -> None:
    """Refuse what the library would raise a ValueError for, or pass over."""
    try:
        parts = urlsplit(url)
        redis.connection.parse_url(_plain(url))  # type: ignore[no-untyped-call] # has no types
    except ValueError:
        # Its text may show a piece of the password: what stands before a slash is taken for a port.
        place = "/PATH?db=0" if scheme == "unix" else "HOST:PORT/0"
        raise SettingsError(
            f"redis.url: {without_password(url)!r} cannot be read: write it as {scheme}://{place}, "
            "a port below 65536, IPv6 in brackets, and / : @ in a password as %2F %3A %40"
        ) from None
    if scheme != "unix":
        _database(parts.path.strip("/"))


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise SettingsError(
            "redis.url: what stands at its end is not the number of a database: write /0, "
            "and / in a password as %2F"
        )
    return int(text or 0)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 65_535


def _sentinel(url: str, scheme: str) -> tuple[str, dict[str, Any]]:
    """Return the service's name, and how to log in to its master."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SettingsError(
            "redis.url: write the Sentinels as redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
        ) from None
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise SettingsError("redis.url: name the Sentinel service: redis+sentinel://HOST:PORT/NAME")
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    login: dict[str, Any] = {"db": _database(database)}
    if user:
        login["username"] = unquote(user)
    if password:
        login["password"] = unquote(password)
    if scheme.startswith("rediss"):
        login["ssl"] = True
    return service, login


def _plain(url: str) -> str:
    return url.replace("+cluster", "", 1)


def _options(timeout_s: float, retry: Any) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
        "retry": retry,
    }

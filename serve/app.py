"""The edges as a Ray Serve application. The one home of `ray.serve`."""

import asyncio
import contextlib
import logging
import re
import resource
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import ray
import ray.serve
import ray.serve.exceptions
from pydantic import SecretStr
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import ApplicationStatus, LoggingConfig

from actors import logs
from actors.errors import SettingsError, UnavailableError
from actors.partition import Keys
from actors.settings.tree import Settings
from actors.store.redis.edge import RedisEdgeStore
from actors.store.redis.pipeline import RedisStats
from serve.auth.access import with_keys
from serve.edge.address import host_and_port
from serve.edge.edge import Edge

log = logging.getLogger(__name__)

DEPLOYMENT: Final = "edge"

_LOOK_EVERY_S: Final = 0.1
_DRAIN_S: Final = 30.0
"""How long an edge may take to send its clients away and to finish."""
_OTHER_REQUESTS_MAX: Final = 1_000
"""Requests through Serve that are no connections: calls of the API, health checks."""
_QUIET: Final = LoggingConfig(log_level="WARNING", enable_access_log=False)
_OUR_ERROR: Final = re.compile(r"actors\.errors\.SettingsError: (.+)")


class EdgeReplica:
    """One replica: an `Edge`, and Serve's ways to ask for its app and its health.

    Pickled by name; on the cluster's nodes both packages are installed, or its `working_dir`.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits a constructor that is a coroutine
        self, settings: Settings, redis_url: str
    ) -> None:
        logs.set_up("INFO", json=True)
        _allow_many_connections()
        keys = Keys(settings.app)
        timeout_s = settings.redis.timeout_s
        store = RedisEdgeStore(
            redis_url,
            keys,
            partitions=settings.queue.partitions,
            timeout_s=timeout_s,
            feed_records_max=settings.feed.records_max,
        )
        self._edge = Edge(settings, store, RedisStats(redis_url, keys, timeout_s=timeout_s))
        await self._edge.start()
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="watch")

    def __serve_build_asgi_app__(self) -> Any:
        """Return the app; Serve asks after the constructor, and runs its lifespan.

        The lifespan's end is the only word that Serve gives a replica which it stops, for whatever
        reason (`ASGIAppReplicaWrapper.__del__`).
        """
        self._edge.app.router.lifespan_context = self._lifespan
        return self._edge.app

    async def check_health(self) -> None:
        """Make sure that the edge lives: else Serve replaces it.

        Whether messages get through is not asked here: where Valkey is away, new edges would not
        help, and the clients of this one would be lost.
        """
        self._edge.check()

    async def drain(self) -> None:
        """Send the clients away and finish what was accepted."""
        await self._edge.close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        yield
        await self.drain()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Drain as soon as Serve begins to stop the replica.

        Before the lifespan ends, Serve waits for the requests under way, and kills the replica
        when they last too long. Connections that came through Serve are such requests, and end
        only when we close them.
        """
        is_stopping = _is_stopping()
        if is_stopping is None:
            return
        while not is_stopping():  # noqa: ASYNC110 - Serve sets no event
            await asyncio.sleep(_LOOK_EVERY_S)
        await self.drain()


def deploy(
    settings: Settings,
    redis_url: str,
    api_key: str,
    token_secret: str,
    *,
    ready_within_s: float = 60.0,
    stop: threading.Event | None = None,
) -> None:
    """Start the edges, or replace those that run, and return when all take connections.

    Some new ones are up before as many old ones drain: they send their clients away (3001), and
    finish the publishes they have accepted. This returns when all old ones have ended.

    Serve is started where it does not run yet. Needs a connection to Ray. The secrets go to the
    replicas pickled with their arguments, which Ray keeps: whoever may read its state reads them.

    Raises:
        SettingsError: The edges cannot start like this, e.g. as `listen` is in use.
        UnavailableError: They did not come up in time, or `stop` was set. Serve keeps trying, and
            keeps the old ones that still run.
    """
    keys = with_keys(settings.auth)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    host, port = host_and_port(settings.edge.serve_listen)
    everywhere = settings.ray.address != "local"
    ray.serve.start(
        proxy_location=ProxyLocation.EveryNode if everywhere else ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=host, port=port),
        logging_config=_QUIET,
    )
    secret = {"api_key": SecretStr(api_key), "token_secret": SecretStr(token_secret)}
    auth = keys.model_copy(update=secret)
    application = _deployment(settings).bind(settings.model_copy(update={"auth": auth}), redis_url)
    ray.serve.run_many(
        [ray.serve.RunTarget(application, name=settings.app, route_prefix="/")],
        # We wait ourselves: with a limit, and with an eye on what the replicas say.
        wait_for_applications_running=False,
    )
    _wait_until_running(settings.app, ready_within_s, stop or threading.Event())


def undeploy(settings: Settings) -> None:
    """Stop the edges: their clients are sent away (3001), and what was accepted is finished.

    Does nothing where they do not run.
    """
    overview = ray.serve.status().applications.get(settings.app)
    if overview is None:
        return
    states = [state for d in overview.deployments.values() for state in d.replica_states]
    # An enum's members in Ray's types, their values in what it returns.
    if any(getattr(state, "value", state) == "RUNNING" for state in states):
        _drain(settings.app)
    ray.serve.delete(settings.app)


def _drain(app: str) -> None:
    """Drain before Serve stops the replicas: it would wait for the connections that it carries."""
    try:
        ray.serve.get_app_handle(app).broadcast("drain").results(timeout_s=_DRAIN_S)
    except (ray.exceptions.RayError, ray.serve.exceptions.RayServeException, TimeoutError) as error:
        log.warning("edges did not drain", extra={"why": str(error)[:300]})


def _deployment(settings: Settings) -> Any:
    """Return the deployment, with what Serve must know of it."""
    return ray.serve.deployment(
        ray.serve.ingress()(EdgeReplica),
        name=DEPLOYMENT,
        num_replicas=settings.edge.replicas,
        ray_actor_options={"num_cpus": settings.edge.num_cpus},
        # To Serve a connection is a request that goes on for long; the default limit is 5.
        max_ongoing_requests=settings.client.connections_max + _OTHER_REQUESTS_MAX,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=_DRAIN_S,
        # Replacing: one new edge in four, at least one, beside all old ones.
        max_surge_percent=25,
        # What keeps an edge from starting will not pass by trying twenty times, Serve's default.
        max_constructor_retry_count=2,
        logging_config=_QUIET,
    )


def _wait_until_running(app: str, within_s: float, stop: threading.Event) -> None:
    deadline = time.monotonic() + within_s
    while True:
        overview = ray.serve.status().applications[app]
        if overview.status == ApplicationStatus.RUNNING:
            return
        told = [overview.message, *(d.message for d in overview.deployments.values())]
        settings_error = _settings_error("\n".join(told))
        if settings_error:
            raise SettingsError(settings_error)
        if overview.status == ApplicationStatus.DEPLOY_FAILED:
            raise UnavailableError(f"the edges do not start: {overview.message}")
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the edges are not up after {within_s:.0f} s: {' '.join(told).strip()}"
            )
        if stop.wait(_LOOK_EVERY_S):
            raise UnavailableError("the system is stopping")


def _settings_error(told: str) -> str:
    """Return the text of our own error in what Serve tells of a replica, or nothing."""
    found = _OUR_ERROR.findall(told)
    return str(found[-1]).strip() if found else ""


def _is_stopping() -> Callable[[], bool] | None:
    """Return what tells whether Serve has begun to stop the replica of this process.

    Serve has no public way to ask. Where this one is gone, connections through Serve are cut after
    `_DRAIN_S` when a replica is stopped; all others are drained all the same.
    """
    try:
        worker = ray._private.worker.global_worker  # noqa: SLF001 - see above
        replica = worker.actors[worker.actor_id]._replica_impl  # noqa: SLF001 - see above
        replica._shutting_down  # noqa: B018, SLF001 - is it there?
    except (AttributeError, KeyError):
        log.warning("this Ray does not say when it stops a replica")
        return None
    return lambda: bool(replica._shutting_down)  # noqa: SLF001 - see above


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, often 1,024, to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

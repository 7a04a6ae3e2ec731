"""A whole system on this machine, or launched from it: Valkey, Ray, the pipeline, the edges."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.errors import SettingsError, UnavailableError
from actors.settings.tree import Settings
from actors.transform.load import check as check_transforms
from serve.auth.access import with_keys
from serve.authorise.load import check as check_rules
from serve.system import local_ray
from serve.system.code_check import digests
from serve.system.control import Ask, Control
from serve.system.local_checks import (
    check_addresses,
    check_port,
    hold_port,
    needed_cpus,
    unhealthy,
)
from serve.system.local_redis import LocalRedis
from serve.system.running import (
    DataLock,
    Running,
    Secrets,
    ensure_secrets,
    remove_running,
    was_killed,
    write_running,
)

if TYPE_CHECKING:
    from actors.supervisor import Pipeline

log = logging.getLogger(__name__)

READY_WITHIN_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.2
_LEFT_ENDS_WITHIN_S: Final = 15.0

Tell = Callable[[str], None]


class LocalSystem:
    """Start everything, watch it, and stop it in the order in which nothing is lost.

    Leaving the context stops it: first the edges, which finish what they have accepted and send
    their clients away (3001), then the nozzles, then the rest. What is in the queue by then
    stays there for the next start.

    Attributes:
        settings: Those in force.
        code_digests: The modules of the transforms in force; see `serve.system.code_check.digests`.
        edges_disturbed: Replacing the edges has failed, so it is not said what they run on.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings = settings
        self._tell = tell
        self._secrets: Secrets = ensure_secrets(settings)
        self._redis = LocalRedis(settings, self._secrets.redis_password)
        self._pipeline: Pipeline | None = None
        self._control = Control(settings.data)
        self._cleanup = ExitStack()
        self.code_digests: dict[str, str] = {}
        self.edges_disturbed = False

    @property
    def url(self) -> str:
        """Of the Valkey in use, with the password."""
        return self._redis.url

    @property
    def page(self) -> str:
        """Where a browser finds the edge."""
        return f"http://{self.settings.edge.listen}"

    @property
    def api_key(self) -> str:
        """The key in force."""
        return self._secrets.api_key

    def __enter__(self) -> "LocalSystem":
        """Start; return when a message would get through.

        Raises:
            SettingsError: Something of the settings, or what they name, is wrong.
            UnavailableError: Something did not come up in time.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop what runs. May be called twice."""
        with signals_wait():
            self._cleanup.close()

    # --- starting

    def _start(self) -> None:
        settings = self.settings
        # Files of ours, and Ray's auth token, are nobody else's to read.
        old_umask = os.umask(0o077)
        self._cleanup.callback(os.umask, old_umask)
        self._cleanup.enter_context(DataLock(settings.data))
        # Left by a `raywire up` that was killed: its processes notice, and end, within seconds.
        within_s = _LEFT_ENDS_WITHIN_S if was_killed(settings.data) else 0.0
        check_addresses(settings.edge)
        for name in ("listen", "serve_listen"):
            address = getattr(settings.edge, name)
            check_port(f"edge.{name}", address, within_s=within_s)
            # The processes of another's cluster may be of another user, whom this would keep out.
            if settings.ray.address == "local":
                self._cleanup.enter_context(hold_port(address))
        with_keys(settings.auth)  # A key file that cannot be used should show at once, too.
        self._tell("Loading the transforms")
        check_transforms(settings, settings.code)
        check_rules(settings, settings.code)
        self.code_digests = digests(settings.code)
        # First, though it takes longer in turn: what is wrong with it should show at once.
        self._cleanup.callback(lambda: self._redis.stop(self._tell))
        self._redis.start(self._tell)
        self._cleanup.callback(self._stop_ray)
        with _start_uncut():
            self._start_ray()
        self._cleanup.callback(self._stop_pipeline)
        self._start_pipeline(settings)
        self._start_edges()
        self._wait_for_health()
        self._cleanup.enter_context(self._control)
        write_running(
            settings.data,
            Running(
                pid=os.getpid(),
                listen=settings.edge.listen,
                serve_listen=settings.edge.serve_listen,
                redis_url=self.url,
                app=settings.app,
                partitions=settings.queue.partitions,
                started_at_s=time.time(),
                control=str(self._control.path),
            ),
        )
        self._cleanup.callback(remove_running, settings.data)

    def _start_ray(self) -> None:
        settings = self.settings
        self._tell("Starting Ray")
        if settings.ray.address == "local":
            local_ray.start(
                cpus=max(os.cpu_count() or 1, needed_cpus(settings)),
                object_store_bytes=settings.ray.object_store_bytes,
                namespace=settings.app,
            )
        else:
            local_ray.prepare()
            import ray

            ray.init(
                address=settings.ray.address,
                runtime_env={"working_dir": str(settings.code)},
                namespace=settings.app,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        # Ray writes its token for all to read where it is older than our umask.
        with contextlib.suppress(OSError):
            Path.home().joinpath(".ray", "auth_token").chmod(0o600)

    def _stop_ray(self) -> None:
        import ray

        if ray.is_initialized():
            self._tell("Stopping Ray")
        ray.shutdown()

    def _start_pipeline(self, settings: Settings) -> None:
        from actors.supervisor import Pipeline

        self._tell("Starting the pipeline")
        self._pipeline = Pipeline(settings, self.url)

    def _stop_pipeline(self) -> None:
        if self._pipeline is None:
            return
        self._tell("Draining the pipeline")
        try:
            self._pipeline.stop()
        except UnavailableError as error:
            # Nothing is lost: what was not committed is still in the queue.
            log.warning("pipeline did not end by itself", extra={"why": str(error)[:300]})
        finally:
            self._pipeline = None

    def _start_edges(self) -> None:
        from serve import app

        self._tell("Starting the edges")
        self._cleanup.callback(self._stop_edges)
        app.deploy(
            self.settings,
            self.url,
            self._secrets.api_key,
            self._secrets.token_secret,
        )

    def _stop_edges(self) -> None:
        from serve import app

        self._tell("Stopping the edges")
        app.undeploy(self.settings)

    def _wait_for_health(self) -> None:
        def waits_for() -> str | None:
            return self._pipeline_waits_for() or unhealthy(self.page)

        self._wait_until(waits_for, threading.Event())

    def _pipeline_waits_for(self) -> str | None:
        if self._pipeline is None or self._pipeline.is_ready():
            return None
        waiting = [name for name, state in self._pipeline.state().items() if state != "ready"]
        return "waiting for " + (", ".join(waiting) or "the supervisor")

    def _wait_until(self, waits_for: Callable[[], str | None], stop: threading.Event) -> None:
        end_s = time.monotonic() + READY_WITHIN_S
        told = ""
        while (why := waits_for()) is not None:
            if why != told:
                self._tell(f"Starting: {why}")
                told = why
            if time.monotonic() > end_s:
                raise UnavailableError(
                    f"not ready after {READY_WITHIN_S:.0f} s: {why}. "
                    "Ray's logs are in /tmp/ray/session_latest/logs"
                )
            if stop.wait(_LOOK_EVERY_S):
                raise UnavailableError("the system is stopping")
            self._redis.keep()

    # --- running

    def look_after(self, stop: threading.Event, answer: Callable[[Ask], None]) -> None:
        """Watch until `stop` is set, and have requests answered, which come one at a time.

        The embedded Valkey is started again where it has died; where that fails it is tried
        again, less and less often. A server that was emptied under us gets the number of
        partitions again, which the data made from then on has.
        """
        while not stop.wait(_LOOK_EVERY_S):
            self._redis.keep()
            ask = self._control.take()
            if ask is not None:
                answer(ask)

    # --- other settings; `serve.system.reload` has the order of these

    @property
    def pipeline_runs(self) -> bool:
        """Whether there is a pipeline: a reload that failed twice leaves none."""
        return self._pipeline is not None

    def check_room(self, settings: Settings) -> None:
        """Make sure that a Ray of our own, whose size is fixed, has the CPUs that others need.

        Raises:
            SettingsError: It has not.
        """
        import ray

        if settings.ray.address != "local":
            return
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's
        there, needed = int(resources.get("CPU", 0)), needed_cpus(settings)
        if needed > there:
            raise SettingsError(
                f"stages, edge: need {needed} CPUs together, and Ray was started with {there}: "
                "lower replicas or num_cpus, or stop `raywire up` (Ctrl-C) and start it again; "
                "nothing is lost"
            )

    def replace_pipeline(self, settings: Settings, tell: Tell, stop: threading.Event) -> float:
        """Drain and end the pipeline, start one on other settings; return the time between in s.

        Raises:
            SettingsError: It cannot start with these; there is no pipeline now.
            UnavailableError: It is not ready in time, or `stop` was set; there is none now.
        """
        with self._telling(tell):
            began_s = time.monotonic()
            self._stop_pipeline()
            self._start_pipeline(settings)
            try:
                self._wait_until(self._pipeline_waits_for, stop)
            except BaseException:
                self._stop_pipeline()
                raise
            return time.monotonic() - began_s

    def replace_edges(self, settings: Settings, tell: Tell, stop: threading.Event) -> None:
        """Put edges on other settings in the place of those that run, new ones first.

        Raises:
            SettingsError: They cannot start with these.
            UnavailableError: They are not up in time, or `stop` was set. In both cases some may be
                replaced.
        """
        from serve import app

        tell("Replacing the edges")
        self.edges_disturbed = True
        secrets = ensure_secrets(settings)
        app.deploy(
            settings,
            self.url,
            secrets.api_key,
            secrets.token_secret,
            ready_within_s=READY_WITHIN_S,
            stop=stop,
        )
        self._secrets, self.edges_disturbed = secrets, False

    @contextlib.contextmanager
    def _telling(self, tell: Tell) -> Iterator[None]:
        old, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = old


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _start_uncut() -> Iterator[None]:
    """Let a signal interrupt us only when Ray has started: half of one crashes at its end.

    Raises:
        KeyboardInterrupt: There was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    old = {number: signal.signal(number, lambda *_: came.append(1)) for number in _ENDING}
    try:
        yield
    except SystemExit:
        # Ray has put a handler of its own in the place of ours for SIGTERM, which does this.
        came.append(1)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Hold Ctrl-C back while things are stopped; SIGKILL remains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

"""A whole system on this machine, or launched from it: Valkey, Ray, the pipeline, the edges."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors import transform
from actors.embedded import EmbeddedValkey
from actors.errors import SettingsError, UnavailableError
from actors.pacing import Backoff
from actors.partition import Keys
from actors.settings import Settings
from actors.store_redis_client import check_layout, check_server
from serve.running import DataLock, Running, Secrets, ensure_secrets, remove_running, write_running

if TYPE_CHECKING:
    from actors.supervisor import Pipeline

log = logging.getLogger(__name__)

READY_WITHIN_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.2
_LAYOUT_EVERY_S: Final = 5.0
_RETRY: Final = Backoff(first_s=0.2, max_s=10.0)
# Batches travel inline, beside the call, up to this size; through the object store a hop costs
# many times more (docs/architecture.md).
_INLINE_BYTES_MAX: Final = 2_000_000
# Read by Ray when it is imported, here and in every process it starts.
_RAY_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray makes its workers yield to everything else on the machine, which is not for live data.
    "RAY_worker_niceness": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}

Tell = Callable[[str], None]


class LocalSystem:
    """Start everything, watch it, and stop it in the order in which nothing is lost.

    Leaving the context stops it: first the edges, which finish what they have accepted and send
    their clients away (3001), then the nozzles, then the rest. What is in the queue by then
    stays there for the next start.
    """

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings = settings
        self._tell = tell
        self._secrets: Secrets = ensure_secrets(settings)
        self._valkey: EmbeddedValkey | None = None
        self._pipeline: Pipeline
        self._cleanup = ExitStack()
        self.url = ""

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
        for name in ("listen", "serve_listen"):
            check_port(f"edge.{name}", getattr(settings.edge, name))
        self._tell("Loading the transforms")
        transform.check(settings, settings.code)
        # First, though it takes longer in turn: what is wrong with it should show at once.
        self._start_redis()
        self._start_ray()
        self._start_pipeline()
        self._start_edges()
        self._wait_for_health()
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
            ),
        )
        self._cleanup.callback(remove_running, settings.data)

    def _start_redis(self) -> None:
        settings, redis = self.settings, self.settings.redis
        self._tell("Starting Valkey" if redis.url is None else "Looking for Valkey")
        if redis.url is None:
            if settings.ray.address != "local":
                raise SettingsError(
                    "redis.url: the nodes of a cluster cannot reach an embedded Valkey: "
                    "name a server that they can reach"
                )
            valkey = EmbeddedValkey(
                settings.data / "valkey",
                self._secrets.redis_password,
                appendfsync=redis.appendfsync,
            )
            valkey.start()
            self._cleanup.callback(self._stop_valkey, valkey)
            self._valkey, self.url = valkey, valkey.url
        else:
            self.url = redis.url.get_secret_value()
            check_server(self.url, timeout_s=redis.timeout_s)
        self._fix_layout()

    def _fix_layout(self) -> None:
        check_layout(
            self.url,
            Keys(self.settings.app).layout,
            partitions=self.settings.queue.partitions,
            timeout_s=self.settings.redis.timeout_s,
        )

    def _stop_valkey(self, valkey: EmbeddedValkey) -> None:
        self._tell("Stopping Valkey")
        valkey.stop()

    def _start_ray(self) -> None:
        settings = self.settings
        self._tell("Starting Ray")
        for name, value in _RAY_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        common: dict[str, Any] = {
            "namespace": settings.app,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": True,
        }
        if settings.ray.address == "local":
            ray.init(
                address="local",
                include_dashboard=False,
                # Logical CPUs: more parts than cores is fine on one machine.
                num_cpus=max(os.cpu_count() or 1, needed_cpus(settings)),
                object_store_memory=settings.ray.object_store_bytes,
                _system_config={"max_direct_call_object_size": _INLINE_BYTES_MAX},
                **common,
            )
        else:
            ray.init(
                address=settings.ray.address,
                runtime_env={"working_dir": str(settings.code)},
                **common,
            )
        # Ray writes its token for all to read where it is older than our umask.
        with contextlib.suppress(OSError):
            Path.home().joinpath(".ray", "auth_token").chmod(0o600)
        self._cleanup.callback(self._stop_ray)

    def _stop_ray(self) -> None:
        import ray

        self._tell("Stopping Ray")
        ray.shutdown()

    def _start_pipeline(self) -> None:
        from actors.supervisor import Pipeline

        self._tell("Starting the pipeline")
        self._pipeline = Pipeline(self.settings, self.url)
        self._cleanup.callback(self._stop_pipeline)

    def _stop_pipeline(self) -> None:
        self._tell("Draining the pipeline")
        try:
            self._pipeline.stop()
        except UnavailableError as error:
            # Nothing is lost: what was not committed is still in the queue.
            log.warning("pipeline did not end by itself", extra={"why": str(error)[:300]})

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
        end_s = time.monotonic() + READY_WITHIN_S
        told = ""
        while True:
            if self._pipeline.is_ready():
                why = unhealthy(self.page)
                if why is None:
                    return
            else:
                waiting = [n for n, state in self._pipeline.state().items() if state != "ready"]
                why = "waiting for " + ", ".join(waiting)
            if why != told:
                self._tell(f"Starting: {why}")
                told = why
            if time.monotonic() > end_s:
                raise UnavailableError(
                    f"not ready after {READY_WITHIN_S:.0f} s: {why}. "
                    "Ray's logs are in /tmp/ray/session_latest/logs"
                )
            time.sleep(_LOOK_EVERY_S)

    # --- running

    def look_after(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; start the embedded Valkey again where it has died.

        Where that fails it is tried again, less and less often. A server that was emptied under
        us gets the number of partitions again, which the data made from then on has.
        """
        failures = 0
        layout_at_s = time.monotonic() + _LAYOUT_EVERY_S
        while not stop.wait(_RETRY.wait_s(failures) if failures else _LOOK_EVERY_S):
            try:
                if self._valkey is not None and not self._valkey.is_running():
                    log.error("valkey died, starting it again")
                    self._valkey.start()
                if failures or time.monotonic() >= layout_at_s:
                    layout_at_s = time.monotonic() + _LAYOUT_EVERY_S
                    self._fix_layout()
                failures = 0
            except (UnavailableError, SettingsError) as error:
                failures += 1
                log.warning("valkey is away", extra={"why": str(error), "failures": failures})


def needed_cpus(settings: Settings) -> int:
    """Return how many CPUs all parts reserve together, with a little to spare."""
    stages = sum(stage.replicas * stage.num_cpus for stage in settings.stages)
    return int(stages + settings.edge.replicas * settings.edge.num_cpus + 1)


def check_port(setting: str, address: str) -> None:
    """Make sure that nobody listens on an address yet.

    Raises:
        SettingsError: Somebody does, or it is not an address of this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        raise SettingsError(
            f"{setting}: cannot listen on {address} ({error.strerror}): "
            f"stop what uses it, or set {setting} to another address"
        ) from error


def unhealthy(page: str) -> str | None:
    """Return what an edge says is wrong; None: it is healthy."""
    try:
        with urllib.request.urlopen(f"{page}/health", timeout=5):  # noqa: S310 - our own address
            return None
    except urllib.error.HTTPError as error:
        return f"edge: {error.read(300).decode(errors='replace')}"
    except OSError as error:
        return f"edge: {error}"


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Hold Ctrl-C back while things are stopped; SIGKILL remains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {number: signal.signal(number, signal.SIG_IGN) for number in held}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

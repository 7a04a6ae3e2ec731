"""The supervisor: makes the actors of a pipeline, watches them, and drains them.

The one home of `ray.remote`. All actors have names in the namespace of the app, so a supervisor
that was restarted finds those that live and goes on.
"""

import logging
import os
import threading
import time
from typing import Any, Final

import ray
import ray.exceptions

from actors import logs
from actors.errors import SettingsError, UnavailableError
from actors.metrics import Numbers, Reporter
from actors.partition import Keys
from actors.roles import NozzleRole, PublisherRole, TransformerRole
from actors.settings.tree import Settings
from actors.silence import Silence
from actors.store.redis.pipeline import RedisStats

log = logging.getLogger(__name__)

NAME: Final = "supervisor"
_LOOK_EVERY_S: Final = 0.5
_PING_EVERY_S: Final = 1.0
_CALL_WITHIN_S: Final = 30.0
_SILENT_S: Final = 10.0
"""How long an actor may neither answer nor report, before it is replaced."""
# Restarts are without limit: an actor keeps nothing, so a new one can always go on. A task is never
# retried by Ray, which would lose the order: the nozzle begins again at the checkpoint instead.
_OPTIONS: Final[dict[str, Any]] = {
    "lifetime": "detached",
    "get_if_exists": True,
    "max_restarts": -1,
    "max_task_retries": 0,
    "enable_task_events": False,
}


class _Watched:
    """One actor as the supervisor sees it."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self.handle = handle
        self.state = "starting"
        self.restarts = 0
        self.pid = 0
        self.ping: Any = None
        self.asked_s = 0.0
        self.silent_s = _SILENT_S

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "restarts": self.restarts,
            "pid": self.pid,
        }


class Supervisor:
    """Keep one pipeline going.

    A thread of its own does the work from the constructor on, so that a restart by Ray needs
    nobody to call anything.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        logs.set_up("INFO", json=True)
        self._settings = settings
        self._url = url
        self._numbers = Numbers("supervisor")
        self._stats = RedisStats(url, Keys(settings.app), timeout_s=settings.redis.timeout_s)
        self._reporter = Reporter(self._stats, NAME, self._numbers)
        self._silence = Silence(NAME)
        self._actors: dict[str, _Watched] = {}
        self._stages: list[list[_Watched]] = []
        self._runs: dict[Any, int] = {}
        self._ready = threading.Event()
        self._draining = threading.Event()
        self._error: SettingsError | None = None
        self._reporter.start()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    # --- what the driver calls

    def state(self) -> dict[str, str]:
        """Return actor name -> `starting`, `ready`, `restarting`.

        Raises:
            SettingsError: The pipeline cannot start with these settings.
        """
        if self._error is not None:
            raise self._error
        return {watched.name: watched.state for watched in list(self._actors.values())}

    def is_ready(self) -> bool:
        """Return whether all actors are up and the nozzles run.

        Raises:
            SettingsError: The pipeline cannot start with these settings.
        """
        if self._error is not None:
            raise self._error
        return self._ready.is_set()

    def ping(self) -> int:
        """Return the process id."""
        return os.getpid()

    def drain(self) -> None:
        """Stop reading the queue, and return when what is under way is committed."""
        self._draining.set()
        nozzles = [w for name, w in self._actors.items() if name.startswith("nozzle:")]
        refs = [watched.handle.drain.remote() for watched in nozzles]
        for ref in refs:
            try:
                ray.get(ref)
            except ray.exceptions.RayActorError:
                # It died, so nothing is under way; the next one begins at the checkpoint.
                log.warning("nozzle died while draining")

    def stop(self) -> None:
        """End all actors for good. What was not drained is taken up by the next start."""
        self._draining.set()
        self._thread.join(timeout=5)
        for watched in self._actors.values():
            try:
                ray.get(watched.handle.stop.remote(), timeout=2)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
                log.warning(
                    "actor did not stop", extra={"actor": watched.name, "why": str(error)[:200]}
                )
            ray.kill(watched.handle)
        self._reporter.stop()

    # --- the thread

    def _watch(self) -> None:
        try:
            self._make()
            self._load()
        except SettingsError as error:
            self._error = error
            return
        for index in range(self._settings.nozzle.count):
            self._run(index)
        self._ready.set()
        while not self._draining.is_set():
            self._look()
            self._numbers.note("actors", [w.describe() for w in self._actors.values()])

    def _make(self) -> None:
        settings, url = self._settings, self._url
        for number, stage in enumerate(settings.stages):
            self._stages.append([])
            for index in range(stage.replicas):
                made = self._actor(
                    f"transformer:{stage.name}:{index}",
                    TransformerRole,
                    (index, stage, settings, url),
                    num_cpus=stage.num_cpus,
                    num_gpus=stage.num_gpus,
                    resources=stage.resources,
                )
                # C code of the user's may keep the interpreter's lock until its own limit is over.
                made.silent_s = _SILENT_S + 1.5 * stage.time_limit_s
                self._stages[number].append(made)
        for index in range(settings.nozzle.count):
            self._actor(f"publisher:{index}", PublisherRole, (index, settings, url), num_cpus=0)
            self._actor(f"nozzle:{index}", NozzleRole, (index, settings, url), num_cpus=0)

    def _actor(self, name: str, role: type, args: tuple[Any, ...], **resources: Any) -> _Watched:
        options = {**_OPTIONS, "name": name, "namespace": self._settings.app, **resources}
        try:
            handle: Any = ray.remote(role).options(**options).remote(*args)
        except ValueError as error:
            # Raised at once, not by the actor; most of what Ray refuses the settings refuse, too.
            raise SettingsError(
                f"{name}: Ray refuses what it is to reserve: {error}: correct num_cpus, num_gpus "
                "or resources of its stage"
            ) from error
        watched = self._actors[name] = _Watched(name, handle)
        return watched

    def _load(self) -> None:
        """Wait until every actor is up and every transform is loaded."""
        waiting: dict[Any, _Watched] = {}
        for watched in self._actors.values():
            waiting[_up(watched)] = watched
        while waiting and not self._draining.is_set():
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK_EVERY_S)
            for ref in done:
                watched = waiting.pop(ref)
                try:
                    watched.pid = ray.get(ref)
                except SettingsError as error:
                    raise _plain(error) from None
                except ray.exceptions.RayError as error:
                    log.warning(
                        "actor did not start, trying again",
                        extra={"actor": watched.name, "why": str(error)[:500]},
                    )
                    time.sleep(_LOOK_EVERY_S)
                    waiting[_up(watched)] = watched
                else:
                    watched.state = "ready"

    def _run(self, index: int) -> None:
        nozzle = self._actors[f"nozzle:{index}"]
        publisher = self._actors[f"publisher:{index}"].handle
        stages = [
            (stage.name, [watched.handle for watched in pool])
            for stage, pool in zip(self._settings.stages, self._stages, strict=True)
        ]
        self._runs[nozzle.handle.run.remote(stages, publisher)] = index

    def _look(self) -> None:
        """Notice, for one turn, which runs and pings have ended, and ask anew."""
        now_s = time.monotonic()
        pings = {}
        for watched in self._actors.values():
            if watched.ping is None and now_s - watched.asked_s >= _PING_EVERY_S:
                watched.ping, watched.asked_s = watched.handle.ping.remote(), now_s
            if watched.ping is not None:
                pings[watched.ping] = watched
        refs = [*self._runs, *pings]
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=_LOOK_EVERY_S)
        for ref in done:
            if ref in self._runs:
                self._run_ended(ref)
            else:
                self._pinged(pings[ref])
        self._replace_silent()

    def _replace_silent(self) -> None:
        """End actors that hang; Ray makes new ones. What they had under way is sent again."""
        now_s = time.monotonic()
        overdue = [
            watched
            for watched in self._actors.values()
            if watched.ping is not None
            and watched.state == "ready"
            and now_s - watched.asked_s > _SILENT_S / 2
        ]
        if not overdue:
            return
        try:
            self._silence.hear(self._stats.read_stats(), now_s)
        except UnavailableError:
            return
        for watched in overdue:
            if self._silence.is_silent(watched.name, now_s, watched.silent_s):
                log.error("actor hangs, replacing it", extra={"actor": watched.name})
                watched.state = "restarting"
                # Also where its process is stopped: after some seconds Ray ends it by force.
                ray.kill(watched.handle, no_restart=False)

    def _run_ended(self, ref: Any) -> None:
        index = self._runs.pop(ref)
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            log.warning(
                "nozzle ended, starting it again",
                extra={"nozzle": index, "why": str(error)[:500]},
            )
        if not self._draining.is_set():
            self._run(index)

    def _pinged(self, watched: _Watched) -> None:
        ref, watched.ping = watched.ping, None
        try:
            pid = ray.get(ref)
        except ray.exceptions.RayError:
            watched.state = "restarting"
            return
        if watched.pid and pid != watched.pid:
            watched.restarts += 1
            log.warning("actor was restarted", extra={"actor": watched.name})
        watched.pid, watched.state = pid, "ready"
        self._silence.answered(watched.name, time.monotonic())


def _up(watched: _Watched) -> Any:
    """Ask for a sign that an actor is up: of a transformer, that its transforms are loaded."""
    is_transformer = watched.name.startswith("transformer:")
    return (watched.handle.ready if is_transformer else watched.handle.ping).remote()


class Pipeline:
    """The driver's side of a supervisor: makes it, or finds it, and calls it.

    A supervisor that was killed is being restarted by Ray; calls wait for that.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        options = {**_OPTIONS, "name": NAME, "namespace": settings.app, "num_cpus": 0}
        role = ray.remote(Supervisor).options(**options, max_concurrency=8)
        self._handle: Any = role.remote(settings, url)

    def is_ready(self) -> bool:
        """See `Supervisor.is_ready`."""
        ready: bool = self._call("is_ready")
        return ready

    def state(self) -> dict[str, str]:
        """See `Supervisor.state`."""
        state: dict[str, str] = self._call("state")
        return state

    def stop(self) -> None:
        """Drain, and end all actors.

        Raises:
            UnavailableError: Some did not answer; what they had under way is still in the queue.
        """
        try:
            try:
                self._call("drain")
            finally:
                # Also where they do not drain: a next pipeline must not find them by their names.
                self._call("stop")
        finally:
            ray.kill(self._handle)

    def _call(self, method: str) -> Any:
        end_s = time.monotonic() + _CALL_WITHIN_S
        while True:
            try:
                ref = getattr(self._handle, method).remote()
                return ray.get(ref, timeout=max(0.0, end_s - time.monotonic()))
            except SettingsError as error:
                raise _plain(error) from None
            except ray.exceptions.ActorUnavailableError as error:
                if time.monotonic() >= end_s:
                    raise UnavailableError(f"the supervisor does not come back: {error}") from error
                time.sleep(_LOOK_EVERY_S)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
                raise UnavailableError(f"the supervisor does not answer: {error}") from error


def _plain(error: SettingsError) -> SettingsError:
    """Return an error as it was raised, without the stacks of the processes it came through."""
    cause = error
    while isinstance(getattr(cause, "cause", None), SettingsError):
        cause = cause.cause  # type: ignore[attr-defined] # Ray's, of a class made at run time
    return SettingsError(*cause.args)

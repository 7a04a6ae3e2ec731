"""The Valkey or Redis of a system on this machine: the embedded one, kept alive, or the user's."""

import logging
import time
from collections.abc import Callable
from typing import Final

from actors.errors import SettingsError, UnavailableError
from actors.pacing import Backoff
from actors.partition import Keys
from actors.settings.tree import Settings
from actors.store.embedded import EmbeddedValkey
from actors.store.redis.client import check_layout, check_server

log = logging.getLogger(__name__)

_LAYOUT_EVERY_S: Final = 5.0
_RETRY: Final = Backoff(first_s=0.2, max_s=10.0)
_STEADY_S: Final = 10.0
"""One that dies sooner after its start has failed to start."""


class LocalRedis:
    """Start a server, or find one, and keep it fit for use.

    Args:
        settings: The whole tree; `data`, `redis`, `ray.address`, `app` and `queue` are read.
        password: For an embedded server.

    Attributes:
        url: Where it is, with the password; empty before `start`.
        valkey: The embedded one, where there is one.
    """

    def __init__(self, settings: Settings, password: str) -> None:
        self._settings = settings
        self._password = password
        self._failures = self._deaths = 0
        self._look_s = self._restart_s = self._tried_s = 0.0
        self.valkey: EmbeddedValkey | None = None
        self.url = ""

    def start(self, tell: Callable[[str], None]) -> None:
        """Start it, or make sure that it answers.

        Raises:
            SettingsError: The URL, the password, the data or the number of partitions is wrong.
            UnavailableError: It does not answer.
        """
        settings, redis = self._settings, self._settings.redis
        if redis.url is None:
            tell("Starting Valkey")
            if settings.ray.address != "local":
                raise SettingsError(
                    "redis.url: the nodes of a cluster cannot reach an embedded Valkey: "
                    "name a server that they can reach"
                )
            data = settings.data / "valkey"
            valkey = EmbeddedValkey(data, self._password, appendfsync=redis.appendfsync)
            valkey.start()
            self._tried_s = time.monotonic()
            self.valkey, self.url = valkey, valkey.url
        else:
            tell("Looking for Valkey")
            self.url = redis.url.get_secret_value()
            check_server(self.url, timeout_s=redis.timeout_s)
        self._fix_layout()

    def keep(self) -> None:
        """Start an embedded server again that has died. Call it often; it does not raise.

        Where that fails, or it dies again soon, it is tried again, less and less often. A server
        that was emptied under us gets the number of partitions again, which the data made from then
        on has.
        """
        now_s = time.monotonic()
        if self.valkey is not None and not self.valkey.is_running():
            if now_s >= self._restart_s:
                self._restart(self.valkey, now_s)
        elif now_s >= self._look_s:
            self._look(now_s)

    def _restart(self, valkey: EmbeddedValkey, now_s: float) -> None:
        log.error("valkey died, starting it again", extra={"why": valkey.why_it_ended()})
        self._deaths = 1 if now_s - self._tried_s > _STEADY_S else self._deaths + 1
        self._restart_s = now_s + _RETRY.wait_s(self._deaths)
        try:
            valkey.start()
        except (UnavailableError, SettingsError) as error:
            log.warning("valkey does not start", extra={"why": str(error)})
        self._tried_s = time.monotonic()
        self._look_s = 0.0

    def _look(self, now_s: float) -> None:
        try:
            self._fix_layout()
        except (UnavailableError, SettingsError) as error:
            self._failures += 1
            self._look_s = now_s + _RETRY.wait_s(self._failures)
            log.warning("valkey is away", extra={"why": str(error), "failures": self._failures})
        else:
            self._failures = 0
            self._look_s = now_s + _LAYOUT_EVERY_S

    def stop(self, tell: Callable[[str], None]) -> None:
        """End an embedded server."""
        if self.valkey is not None:
            tell("Stopping Valkey")
            self.valkey.stop()

    def _fix_layout(self) -> None:
        check_layout(
            self.url,
            Keys(self._settings.app).layout,
            partitions=self._settings.queue.partitions,
            timeout_s=self._settings.redis.timeout_s,
        )

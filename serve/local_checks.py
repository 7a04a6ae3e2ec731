"""What is looked at before and while a system starts on this machine."""

import errno
import math
import socket
import time
import urllib.error
import urllib.request
from typing import Final

from actors.errors import SettingsError
from actors.settings import Settings

_LOOK_EVERY_S: Final = 0.2


def needed_cpus(settings: Settings) -> int:
    """Return how many CPUs all parts reserve together, with a little to spare."""
    stages = sum(stage.replicas * stage.num_cpus for stage in settings.stages)
    edge = settings.edge
    # To spare is room for one new edge beside the old ones; see `serve.app`.
    return math.ceil(stages + edge.replicas * edge.num_cpus + max(1.0, edge.num_cpus))


def check_port(setting: str, address: str, *, within_s: float = 0.0) -> None:
    """Make sure that nobody listens on an address, now or after at most `within_s` seconds.

    Raises:
        SettingsError: Somebody does, or it is not an address of this machine.
    """
    end_s = time.monotonic() + within_s
    while True:
        try:
            _check_port(setting, address)
        except SettingsError:
            if time.monotonic() >= end_s:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return


def _check_port(setting: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        remedy = "stop what uses it, or " if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(
            f"{setting}: cannot listen on {address} ({error.strerror}): "
            f"{remedy}set {setting} to another address"
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

"""What is looked at before and while a system starts on this machine."""

import contextlib
import errno
import json
import math
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final

from actors.errors import SettingsError
from actors.settings.tree import EdgeSettings, Settings
from serve.edge.address import bind

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
    try:
        bind(address, socket.SO_REUSEADDR).close()
    except OSError as error:
        remedy = "stop what uses it, or " if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(
            f"{setting}: cannot listen on {address} ({error.strerror}): "
            f"{remedy}set {setting} to another address"
        ) from error


@contextlib.contextmanager
def hold_port(address: str) -> Iterator[None]:
    """Keep a checked address for our processes, from before they listen until after.

    Some 20 s pass till then, in which Ray's processes take many ports that the kernel thinks free.
    The socket that holds it does not listen: connections reach those that do, with SO_REUSEPORT and
    as our user.
    """
    with contextlib.ExitStack() as held:
        # Connections of another program that ended lately may still be in the way. They are not in
        # that of SO_REUSEADDR, which our listeners set, but this must not: others could bind, too.
        with contextlib.suppress(OSError):
            held.enter_context(bind(address, socket.SO_REUSEPORT))
        yield


def check_addresses(edge: EdgeSettings) -> None:
    """Refuse addresses at which a system on this machine cannot be found.

    Raises:
        SettingsError: The two are one, or have no port.
    """
    for name, address in (("listen", edge.listen), ("serve_listen", edge.serve_listen)):
        if address.rpartition(":")[2].strip("0") == "":
            raise SettingsError(f"edge.{name}: {address} has no port: give one, e.g. 8000")
    if edge.listen == edge.serve_listen:
        raise SettingsError(
            f"edge.serve_listen: {edge.serve_listen} is edge.listen, too: give it another port"
        )


def unhealthy(page: str) -> str | None:
    """Return what an edge says is wrong; None: it is healthy."""
    try:
        with urllib.request.urlopen(f"{page}/health", timeout=5):  # noqa: S310 - our own address
            return None
    except urllib.error.HTTPError as error:
        return f"edge: {_problem(error.read())}"
    except OSError as error:
        return f"edge: {error}"


def _problem(body: bytes) -> str:
    """Return the first of the problems that an edge's answer names."""
    try:
        return str(json.loads(body)["problems"][0])
    except (ValueError, LookupError, TypeError):
        return body[:300].decode(errors="replace")

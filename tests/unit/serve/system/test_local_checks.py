"""A start waits for ports that a killed system still holds, and for no others."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.errors import SettingsError
from actors.settings.tree import EdgeSettings
from serve.edge.address import bind
from serve.system.local_checks import check_addresses, check_port, hold_port
from serve.system.running import Running, remove_running, was_killed, write_running
from tests.conftest import free_port


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who listens."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def address(listener: socket.socket) -> str:
    """Where it listens."""
    return f"127.0.0.1:{listener.getsockname()[1]}"


def test_port_in_use_is_told_at_once(listener: socket.socket) -> None:
    """Whoever else uses the port will not go away by waiting."""
    with pytest.raises(SettingsError, match=r"edge\.listen: cannot listen"):
        check_port("edge.listen", address(listener))


def test_port_that_becomes_free_is_waited_for(listener: socket.socket) -> None:
    """What a killed system has left lets go of the port within seconds."""
    where = address(listener)
    closing = threading.Timer(0.3, listener.close)
    closing.start()
    check_port("edge.listen", where, within_s=30)
    closing.join()


def test_wait_for_a_port_has_an_end(listener: socket.socket) -> None:
    """A port that stays in use is told in the end."""
    with pytest.raises(SettingsError, match=r"edge\.listen: cannot listen"):
        check_port("edge.listen", address(listener), within_s=0.3)


def test_ipv6_is_an_address_like_any_other() -> None:
    """It is written in brackets: `[::1]:8000`."""
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen()
        where = f"[::1]:{listener.getsockname()[1]}"
        with pytest.raises(SettingsError, match="stop what uses it"):
            check_port("edge.listen", where)
    check_port("edge.listen", where)


def test_held_port_is_for_our_listeners_only() -> None:
    """While edges start nobody takes their port, and what they accept reaches them."""
    where = f"127.0.0.1:{free_port()}"
    with hold_port(where):
        with pytest.raises(SettingsError, match="stop what uses it"):
            check_port("edge.listen", where)
        with bind(where, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as edge:
            edge.listen()
            for _ in range(20):
                with socket.create_connection(edge.getsockname(), timeout=5):
                    edge.accept()[0].close()
    check_port("edge.listen", where)


def test_address_of_another_machine_is_used_by_nobody() -> None:
    """There is nothing to stop, only another address to choose. 192.0.2.1: RFC 5737."""
    with pytest.raises(SettingsError, match=r"\): set edge\.listen to another address"):
        check_port("edge.listen", "192.0.2.1:8000")


def test_system_that_ended_well_leaves_no_trace(tmp_path: Path) -> None:
    """Only after a kill there is something to wait for."""
    assert not was_killed(tmp_path)
    write_running(tmp_path, Running(1, "127.0.0.1:1", "127.0.0.1:2", "redis://", "raywire", 8, 0.0))
    assert was_killed(tmp_path)
    remove_running(tmp_path)
    assert not was_killed(tmp_path)


@pytest.mark.parametrize(
    ("listen", "serve_listen", "wrong"),
    [
        ("127.0.0.1:0", "127.0.0.1:8001", "edge.listen"),
        ("127.0.0.1:8000", "127.0.0.1:0", "edge.serve_listen"),
        ("127.0.0.1:8000", "127.0.0.1:8000", "edge.serve_listen"),
    ],
)
def test_addresses_that_cannot_be_found_are_refused(
    listen: str, serve_listen: str, wrong: str
) -> None:
    """Before anything starts, and not when nobody has answered for long."""
    with pytest.raises(SettingsError, match=wrong):
        check_addresses(EdgeSettings(listen=listen, serve_listen=serve_listen))

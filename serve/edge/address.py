"""Addresses to listen on: `host:port`, an IPv6 host in brackets."""

import socket


def host_and_port(address: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of an address that settings have checked."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str, *options: int) -> socket.socket:
    """Return a TCP socket that is bound to an address, and does not listen yet.

    Args:
        address: Port 0: a free one.
        options: Of SOL_SOCKET, which are switched on first.

    Raises:
        OSError: Somebody else uses it, or it is not an address of this machine.
    """
    where = host_and_port(address)
    bound = socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound

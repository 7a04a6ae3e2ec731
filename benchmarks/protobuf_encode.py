"""Encode the pushes of publications in each codec, and with Google's library, and time it.

    python benchmarks/protobuf_encode.py [--size BYTES]

Needs the `test` extra, for the schema that Google's library uses. Microseconds for one
publication, the best of several rounds, as JSON on stdout.
"""

import argparse
import json
import platform
import sys
import timeit
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from centrifuge.protocol import client_pb2
from google.protobuf import __version__ as google_version
from google.protobuf.internal import api_implementation

from serve.protocol_json import JSON
from serve.protocol_protobuf import PROTOBUF

_BLOCK: Final = 100
_ROUNDS: Final = 9
_SCHEMA: Final[Any] = client_pb2
_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=200, help="bytes of each publication's data")
    size: int = parser.parse_args().size
    data = b'"%b"' % (b"x" * max(0, size - 2))
    info = b'{"user":"u","client":"c"}'
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "protobuf": f"{google_version} ({api_implementation.Type()})",
        "size": size,
        "microseconds": {
            "data": _times([b'{"data":%b}' % data] * _BLOCK),
            "data and info": _times([b'{"info":%b,"data":%b}' % (info, data)] * _BLOCK),
        },
    }
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _times(bodies: Sequence[bytes]) -> dict[str, float]:
    assert _google("channel", 1, bodies) == PROTOBUF.publications("channel", 1, bodies)  # noqa: S101
    ways = {"JSON": JSON.publications, "Protobuf": PROTOBUF.publications, "Google's": _google}
    return {name: round(_best_us(way, bodies), 3) for name, way in ways.items()}


def _best_us(
    way: Callable[[str, int, Sequence[bytes]], list[bytes]], bodies: Sequence[bytes]
) -> float:
    rounds = timeit.repeat(lambda: way("channel", 1, bodies), number=100, repeat=_ROUNDS)
    return min(rounds) / 100 / len(bodies) * 1e6


def _google(channel: str, first: int, bodies: Sequence[bytes]) -> list[bytes]:
    """Do what the codec does, with Google's library."""
    messages = []
    for offset, body in enumerate(bodies, first):
        fields = _decode(body)
        publication = _SCHEMA.Publication(data=bytes(fields["data"]), offset=offset)
        if "info" in fields:
            who = msgspec.json.decode(fields["info"])
            publication.info.user, publication.info.client = who["user"], who["client"]
        push = _SCHEMA.Push(channel=channel, pub=publication)
        text = _SCHEMA.Reply(push=push).SerializeToString()
        messages.append(_length(len(text)) + text)
    return messages


def _length(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


if __name__ == "__main__":
    main()

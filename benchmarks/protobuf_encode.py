"""Encode the pushes of publications in each codec, as fan-out does, and time it.

    python benchmarks/protobuf_encode.py [--size BYTES]

Microseconds for one publication, the best of several rounds, as JSON on stdout.
"""

import argparse
import json
import platform
import sys
import timeit
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf import __version__ as google_version
from google.protobuf.internal import api_implementation

from serve.protocol.json_codec import JSON
from serve.protocol.protobuf_codec import PROTOBUF
from serve.protocol.shape import whole

_BLOCK: Final = 100
_ROUNDS: Final = 200


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
            "data, whole for deltas": _times([whole(b'{"data":%b}' % data)] * _BLOCK),
        },
    }
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _times(bodies: Sequence[bytes]) -> dict[str, float]:
    ways = {"JSON": JSON.publications, "Protobuf": PROTOBUF.publications}
    return {name: round(_best_us(way, bodies), 3) for name, way in ways.items()}


def _best_us(
    way: Callable[[str, int, Sequence[bytes]], list[bytes]], bodies: Sequence[bytes]
) -> float:
    # Short rounds: some of many are not interrupted.
    rounds = timeit.repeat(lambda: way("channel", 1, bodies), number=5, repeat=_ROUNDS)
    return min(rounds) / 5 / len(bodies) * 1e6


if __name__ == "__main__":
    main()

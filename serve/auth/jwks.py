"""Reads the keys that a JWKS endpoint publishes (RFC 7517), without holding up the event loop."""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from typing import Final

from actors.errors import UnavailableError
from serve.auth.keys import KeySet

_TIMEOUT_S: Final = 5.0
_BYTES_MAX: Final = 2**20


def fetch(url: str) -> bytes:
    """Return what an endpoint answers. Blocks some seconds at most.

    Raises:
        UnavailableError: It does not answer, not in time, or with an error or too much.
    """
    end_s = time.monotonic() + _TIMEOUT_S
    text = b""
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - of the settings
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 - as above
            while part := response.read1(65_536):
                text += part
                if len(text) > _BYTES_MAX or time.monotonic() > end_s:
                    raise UnavailableError("it answers too much, or too slowly")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(str(error) or type(error).__name__) from error
    return text


class KeyReader:
    """Reads key sets when they want it; those who want the same read share it."""

    def __init__(self) -> None:
        self._locks: dict[KeySet, asyncio.Lock] = {}

    async def read(self, keys: KeySet) -> None:
        """Read a key set, or wait for the read under way. Trouble is noted in the set."""
        async with self._locks.setdefault(keys, asyncio.Lock()):
            if not keys.begin():
                return
            try:
                # In a thread: name look-ups block, too. It ends by its own timeout.
                keys.take(await asyncio.to_thread(fetch, keys.url))
            except UnavailableError as error:
                keys.fail(str(error))
            finally:
                keys.end()

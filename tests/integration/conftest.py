"""What tests of trouble with the server use."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.small_pipeline import OwnValkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A server of the test's own, with its data in a file."""
    server = OwnValkey(tmp_path)
    server.start()
    yield server
    if server.is_running():
        server.signal(signal.SIGCONT)
    server.stop()

"""`raywire status` as a process, on a real Valkey; and a password that is wrong."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from actors.partition import Keys
from actors.store.redis.client import check_layout
from serve.system.running import DataLock, Running, write_running
from tests.conftest import raywire

pytestmark = pytest.mark.redis


@pytest.fixture
def refusing_url(valkey_url: str) -> Iterator[str]:
    """A Valkey that can be read, and refuses every write."""
    check_layout(valkey_url, Keys().layout, partitions=8, timeout_s=5)
    with redis.Redis.from_url(valkey_url) as admin:
        admin.config_set("min-replicas-to-write", 1)
        yield valkey_url
        admin.config_set("min-replicas-to-write", 0)


def test_a_system_that_cannot_write_its_numbers_runs(refusing_url: str, tmp_path: Path) -> None:
    """Its process lives: status says so, and why nothing is known of its parts."""
    with DataLock(tmp_path):
        write_running(
            tmp_path,
            Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:2", refusing_url, "raywire", 8, 1),
        )
        done = raywire("status", "--data", str(tmp_path))
    assert done.returncode == 3
    assert f"raywire runs (pid {os.getpid()})" in done.stderr
    assert "has too few replicas" in done.stderr


def test_a_server_without_a_system_has_none_that_runs(valkey_url: str, tmp_path: Path) -> None:
    """Nothing is known of a process, and nobody has written numbers."""
    done = raywire("status", "--data", str(tmp_path), "--redis", valkey_url)
    assert done.returncode == 3
    assert "does not run" in done.stderr


@pytest.fixture
def locked_url(valkey_url: str) -> Iterator[str]:
    """A Valkey that wants a password, with another one."""
    with redis.Redis.from_url(valkey_url) as admin:
        admin.config_set("requirepass", "right")
        yield valkey_url.replace("//", "//:wrong@")
        admin.config_set("requirepass", "")


@pytest.mark.parametrize("args", [["status"], ["publish", "news", "-m", "x"], ["dead", "list"]])
def test_a_wrong_password_is_said_at_once(args: list[str], locked_url: str, tmp_path: Path) -> None:
    """With the remedy, and the exit code that says not to try again."""
    done = raywire(*args, "--data", str(tmp_path), "--redis", locked_url)
    assert done.returncode == 2
    assert "check user and password" in done.stderr
    assert "wrong@" not in done.stderr
    assert done.stdout == ""

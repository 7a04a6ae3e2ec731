"""A running system with transforms and functions of its own, which tests change."""

from typing import Any

import yaml

from tests.conftest import System

CODE = """
def stamp(message):
    return message.replace(data={"n": message.data["n"], "version": VERSION})
"""
SERVICE = """
from pathlib import Path


def enrich(message, mended):
    if not Path(mended).exists():
        raise LookupError("the service is away")
    return message.replace(data={**message.data, "enriched": True})
"""
NAMESPACE = {"history_size": 100_000, "history_ttl_s": 600, "force_recovery": True}


class Site:
    """A running system, whose code and settings are changed.

    Attributes:
        system: What runs, or ran.
        directory: Of the code and the settings file.
        mended: The file without which messages to `news` die.
        version: Which the code puts into messages.
        channels: Those of the test that runs.
    """

    def __init__(self, system: System) -> None:
        """Put a system of the demo's on settings of its own."""
        self.system = system
        self.directory = system.data.parent
        self.mended = self.directory / "mended"
        self.version: Any = 1
        self.channels: list[str] = []
        self._changes: dict[str, Any] = {}
        self._tests = 0
        (self.directory / "my_service.py").write_text(SERVICE)
        self.write_code("1")
        self.write_settings()
        done = system.raywire("reload", cwd=self.directory, timeout=200)
        assert done.returncode == 0, done.stderr

    def next_test(self) -> None:
        """Take other channels than the tests before."""
        self._tests += 1
        self.channels = [f"c:{self._tests}-{n}" for n in range(4)]
        self.write_settings()

    def write_code(self, version: str) -> None:
        """Write the transform; one of another length, lest an old byte code be taken for it."""
        (self.directory / "my_code.py").write_text(CODE.replace("VERSION", version))

    def write_settings(self, **changes: Any) -> None:
        """Write the settings file, with changes that are not kept until `keep`."""
        transforms = [
            {"channels": "c:*", "use": "my_code:stamp"},
            {
                "channels": "news",
                "use": "my_service:enrich",
                "options": {"mended": str(self.mended)},
            },
        ]
        stage = {"name": "one", "num_cpus": 0.1, "attempts": 2, "backoff_s": 0}
        tree = {
            "channels": {"history_size": 10, "history_ttl_s": 600},
            "namespaces": {"c": NAMESPACE},
            # Recovery of all that comes while a client is away.
            "client": {"insecure": True, "recovery_max": 100_000, "outbox_bytes_max": 2**24},
            "edge": {"num_cpus": 0.1},
            "stages": [{**stage, "transforms": transforms}],
            **self._changes,
            **changes,
        }
        (self.directory / "raywire.yaml").write_text(yaml.safe_dump(tree))

    def keep(self, **changes: Any) -> None:
        """Write the settings file, with changes that are in all later ones."""
        self._changes.update(changes)
        self.write_settings()

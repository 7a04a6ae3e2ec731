"""The loss of a node: its actors are made anew elsewhere, and nothing is lost or repeated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


def test_lost_node_loses_and_repeats_nothing(valkey_url: str) -> None:
    """A node with transformers is killed under load: all is applied once, in order, elsewhere."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cluster.lose_node", valkey_url],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads(ended.stdout.strip().splitlines()[-1])
    assert len(result["numbers"]) == 6
    for numbers in result["numbers"].values():
        assert numbers == list(range(1000))

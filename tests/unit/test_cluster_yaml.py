"""cluster.yaml is one that Ray's cluster launcher takes. Nothing is launched."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError  # type: ignore[import-untyped]  # it comes with Ray
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def test_launcher_takes_it(config: dict[str, Any]) -> None:
    """The launcher judges a file after it has put its defaults in."""
    validate_config(prepare_config(copy.deepcopy(config)))


def test_launcher_would_notice_an_error(config: dict[str, Any]) -> None:
    """Else the test above would show nothing."""
    config["max_worker"] = 1

    with pytest.raises(ValidationError):
        validate_config(prepare_config(config))


def test_every_ray_asks_for_the_token(config: dict[str, Any]) -> None:
    """`ray start` has no authentication unless it is told to; see Ray's guide on token mode."""
    starts = [
        command
        for role in ("head", "worker")
        for command in config[f"{role}_start_ray_commands"]
        if "ray start" in command
    ]

    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_only_the_edge_is_open_to_the_world(config: dict[str, Any]) -> None:
    permissions = config["provider"]["security_group"]["IpPermissions"]

    assert [(each["FromPort"], each["ToPort"]) for each in permissions] == [(8000, 8000)]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]

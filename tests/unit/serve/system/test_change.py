"""Which parts must begin anew for a change of settings to hold."""

from typing import Any

import pytest

from actors.settings.tree import Settings
from serve.system.change import compare

STAGE = {"name": "one", "transforms": [{"use": "pick"}]}


def tree(**more: Any) -> Settings:
    """Settings with a namespace and a stage."""
    return Settings.model_validate({"namespaces": {"a": {}}, "stages": [STAGE], **more})


def test_same_settings_change_nothing() -> None:
    """Equal trees differ in no name."""
    change = compare(tree(), tree())
    assert (change.names, change.restart, change.pipeline, change.edges) == ((), (), False, False)


@pytest.mark.parametrize(
    ("new", "names", "pipeline", "edges"),
    [
        ({"namespaces": {"a": {"presence": True}}}, ["namespaces.a.presence"], False, True),
        ({"namespaces": {"a": {"history_size": 5}}}, ["namespaces.a.history_size"], True, True),
        ({"namespaces": {"a": {}, "b": {}}}, ["namespaces.b"], True, True),
        ({"namespaces": {}}, ["namespaces.a"], True, True),
        ({"channels": {"join_leave": True}}, ["channels.join_leave"], False, True),
        ({"channels": {"history_ttl_s": 5}}, ["channels.history_ttl_s"], True, True),
        ({"stages": []}, ["stages.0"], True, False),
        ({"stages": [STAGE, {"name": "two"}]}, ["stages.1"], True, False),
        ({"stages": [{**STAGE, "replicas": 2}]}, ["stages.0.replicas"], True, False),
        ({"nozzle": {"count": 2}}, ["nozzle.count"], True, False),
        ({"dead": {"records_max": 5}}, ["dead.records_max"], True, False),
        ({"client": {"channels_max": 5}}, ["client.channels_max"], False, True),
        ({"edge": {"replicas": 2}}, ["edge.replicas"], False, True),
        ({"authorise": {"rpc": "rules:rpc"}}, ["authorise.rpc"], False, True),
        ({"auth": {"api_key": "x"}}, ["auth.api_key"], False, True),
        ({"queue": {"entries_max": 5}}, ["queue.entries_max"], False, True),
        ({"queue": {"message_bytes_max": 99}}, ["queue.message_bytes_max"], True, True),
        ({"feed": {"records_max": 500}}, ["feed.records_max"], True, True),
    ],
)
def test_only_parts_that_read_a_setting_begin_anew(
    new: dict[str, Any], names: list[str], pipeline: bool, edges: bool
) -> None:
    """Edges alone, the pipeline alone, or both."""
    change = compare(tree(), tree(**new))
    assert (list(change.names), change.restart) == (names, ())
    assert (change.pipeline, change.edges) == (pipeline, edges)


@pytest.mark.parametrize(
    ("new", "name"),
    [
        ({"app": "other"}, "app"),
        ({"data": "/else"}, "data"),
        ({"redis": {"timeout_s": 1}}, "redis.timeout_s"),
        ({"ray": {"address": "auto"}}, "ray.address"),
        ({"queue": {"partitions": 4}}, "queue.partitions"),
        ({"edge": {"listen": "127.0.0.1:1"}}, "edge.listen"),
        ({"edge": {"serve_listen": "127.0.0.1:1"}}, "edge.serve_listen"),
    ],
)
def test_some_settings_need_a_restart(new: dict[str, Any], name: str) -> None:
    """They are told apart from what may change."""
    assert compare(tree(), tree(**new, demo=True)).restart == (name,)

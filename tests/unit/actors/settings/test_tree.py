"""The settings tree: its defaults, its limits, what holds for a channel, and its reference."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.settings.names import Name, every, find, guess
from actors.settings.reference import reference
from actors.settings.tree import (
    ChannelSettings,
    Settings,
    StageSettings,
    TokenSettings,
    TransformSettings,
)

DOCS = Path(__file__).parents[4] / "docs"


def test_latest_for_all_needs_cache_recovery() -> None:
    """It would do nothing in silence; the error names what to set."""
    cache = {"force_recovery": True, "force_recovery_mode": "cache"}
    assert ChannelSettings.model_validate({"auto_cache_recover": True, **cache}).auto_cache_recover
    for missing in cache:
        given = {"auto_cache_recover": True, **cache}
        del given[missing]
        with pytest.raises(ValidationError, match="force_recovery"):
            ChannelSettings.model_validate(given)


def test_channel_has_the_options_of_its_namespace() -> None:
    """The namespace is the text before the first colon, after a leading `$`."""
    news = ChannelSettings(history_size=1, history_ttl_s=1)
    settings = Settings(namespaces={"news": news})

    assert settings.channel_settings("news:a:b") == news
    assert settings.channel_settings("$news:a") == news
    assert settings.channel_settings("news") == settings.channels
    assert settings.channel_settings("other:a") is None


@pytest.mark.parametrize(("size", "ttl_s", "has"), [(1, 1, True), (0, 1, False), (1, 0, False)])
def test_history_needs_size_and_time(size: int, ttl_s: int, has: bool) -> None:
    assert ChannelSettings(history_size=size, history_ttl_s=ttl_s).has_history is has


@pytest.mark.parametrize("use", ["module:name", "a.b.c:Name", "filter"])
def test_transform_names_something(use: str) -> None:
    assert TransformSettings(use=use).use == use


@pytest.mark.parametrize("use", ["", "a b", "a:", "a:b:c", "a.py:f()", "../a:b"])
def test_transform_that_names_nothing_is_refused(use: str) -> None:
    with pytest.raises(ValidationError, match="module:name"):
        TransformSettings(use=use)


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="same name"):
        Settings.model_validate({"stages": [{"name": "a"}, {"name": "a"}]})


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"client": {"namespace": "n"}}, "no namespace 'n': add it"),
        (
            {"client": {}, "channels": {"allow_subscribe_for_client": True}},
            "set channels.allow_user_limited_channels",
        ),
        (
            {
                "client": {"namespace": "n"},
                "namespaces": {"n": {"allow_subscribe_for_client": True}},
            },
            "set namespaces.n.allow_user_limited_channels",
        ),
    ],
)
def test_personal_channels_must_be_guarded(tree: dict[str, Any], why: str) -> None:
    """Else every client could subscribe to those of others."""
    on = {"subscribe_to_user_personal_channel": {"enabled": True, **tree["client"]}}
    with pytest.raises(ValidationError, match=why):
        Settings.model_validate({**tree, "client": on})
    for part in (tree.get("channels"), *tree.get("namespaces", {}).values()):
        if part is not None:
            part["allow_user_limited_channels"] = True
            guarded = Settings.model_validate({**tree, "client": on})
            assert guarded.client.subscribe_to_user_personal_channel.enabled


@pytest.mark.parametrize(
    "url", ["keys.example/set", "file:///etc/passwd", "https://", "https:// a"]
)
def test_key_set_is_at_an_http_address(url: str) -> None:
    with pytest.raises(ValidationError, match="https://host/path"):
        TokenSettings(jwks_url=url)


@pytest.mark.parametrize("name", ["a b", "a:b", "", "caf\u00e9", "$a"])
def test_namespace_that_no_channel_can_have_is_refused(name: str) -> None:
    """Else a misspelled name would wait in vain for its first message."""
    with pytest.raises(ValidationError, match="namespaces: no channel can have"):
        Settings(namespaces={name: ChannelSettings()})


@pytest.mark.parametrize("kind", ["subscribe", "publish"])
@pytest.mark.parametrize("where", ["channels", "namespaces.news"])
def test_who_asks_a_function_must_have_one(kind: str, where: str) -> None:
    """Else everybody would be refused, or nobody."""
    options = {f"authorise_{kind}": True}
    tree = {"channels": options} if where == "channels" else {"namespaces": {"news": options}}
    with pytest.raises(
        ValidationError, match=rf"{where}.authorise_{kind}: there is nothing to ask"
    ):
        Settings.model_validate(tree)
    Settings.model_validate({**tree, "authorise": {kind: f"rules:{kind}"}})


def test_function_that_nothing_leads_to_is_refused() -> None:
    """Its author would wait in vain for the first call."""
    wanted = {"sub_refresh": "rules:again"}
    with pytest.raises(ValidationError, match="sub_refresh: it would never be asked"):
        Settings.model_validate({"authorise": wanted})
    for leads in ("connect", "subscribe"):
        Settings.model_validate({"authorise": {**wanted, leads: "rules:first"}})


@pytest.mark.parametrize(
    ("tree", "setting"),
    [
        (
            {"channels": {"history_size": 1, "history_ttl_s": 61, "history_meta_ttl_s": 60}},
            "channels.history_meta_ttl_s",
        ),
        ({"client": {"presence_ttl_s": 27}}, "client.presence_ttl_s"),
        (
            {"authorise": {"connect": "rules:connect", "time_limit_s": 10}},
            "client.stale_close_delay_s",
        ),
    ],
)
def test_times_that_contradict_one_another_are_refused(tree: dict[str, Any], setting: str) -> None:
    """The error names the one to change."""
    with pytest.raises(ValidationError, match=setting):
        Settings.model_validate(tree)


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ({"num_cpus": 0.00001}, "give 0, or 0.0001 or more"),
        ({"num_gpus": 1.5}, "give a whole number, or less than 1"),
        ({"resources": {"GPU": 1}}, "set num_gpus instead"),
        ({"resources": {"CPU": 1}}, "set num_cpus instead"),
        ({"resources": {"memory": 1e9}}, "take it out"),
        ({"resources": {"tape": -1}}, "greater than or equal to 0"),
        ({"resources": {"tape": 0.00001}}, "give 0, or 0.0001 or more"),
        ({"resources": {"tape": 1e300}}, "less than or equal to"),
    ],
)
def test_what_ray_refuses_to_reserve_is_refused(stage: dict[str, Any], why: str) -> None:
    """It would do so when the actors are made, after everything else has started."""
    with pytest.raises(ValidationError, match=re.escape(why)):
        Settings.model_validate({"stages": [stage]})


def test_what_ray_reserves_is_taken() -> None:
    stage = StageSettings(num_cpus=0, num_gpus=0.0001, resources={"tape": 2.5, "node:10.0.0.1": 1})
    assert stage.resources == {"tape": 2.5, "node:10.0.0.1": 1}


def _tree(parts: tuple[str, ...], value: object) -> Any:
    """Return the raw tree that gives one setting a value."""
    if not parts:
        return value
    below = _tree(parts[1:], value)
    return [below] if parts[0] == "<n>" else {parts[0].strip("<>"): below}


def _numbers() -> list[Name]:
    plain = [name for name in every() if name.annotation in (int, float)]
    window = find(("nozzle", "window"))
    assert window is not None
    return [*plain, window]


def test_every_number_has_an_upper_limit() -> None:
    """What Valkey, Ray or a timer cannot count fails late: a commit, for good, or a start."""
    assert len(_numbers()) > 40
    for name in _numbers():
        with pytest.raises(ValidationError) as caught:
            Settings.model_validate(_tree(name.parts, 10**30))
        assert caught.value.errors()[0]["type"] == "less_than_equal", name.parts


def test_no_number_is_true_or_false() -> None:
    """`true` would be 1."""
    for name in _numbers():
        with pytest.raises(ValidationError, match=r"valid integer|give a number"):
            Settings.model_validate(_tree(name.parts, True))


@pytest.mark.parametrize(
    "tree",
    [
        {"stages": [{"time_limit_s": 1e-9}]},
        {"redis": {"timeout_s": 1e-9}},
        {"client": {"ping_interval_s": 1e-9}},
        {"nozzle": {"block_s": 1e-9}},
    ],
)
def test_time_that_no_timer_can_keep_is_refused(tree: dict[str, Any]) -> None:
    """It would hang, or do nothing but look at the clock."""
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.001"):
        Settings.model_validate(tree)


@pytest.mark.parametrize("use", ["rules", "rules:", ":f", "rules:f.g", "a b:c"])
def test_function_is_named_by_module_and_name(use: str) -> None:
    """There are none of ours that a bare name could mean."""
    with pytest.raises(ValidationError, match="write it as module:name"):
        Settings.model_validate({"authorise": {"connect": use}})


def test_secrets_do_not_show_in_text() -> None:
    settings = Settings.model_validate({"auth": {"api_key": "hidden"}, "redis": {"url": "hidden"}})

    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (("queue", "entries_max"), True),
        (("namespaces", "news", "presence"), True),
        (("stages", 0, "transforms", 1, "options", "any"), True),
        (("queue", "entries"), False),
        (("app", "more"), False),
    ],
)
def test_names_are_found(parts: tuple[str | int, ...], found: bool) -> None:
    assert (find(parts) is not None) is found


def test_guess_is_near_at_the_same_place_first() -> None:
    assert guess(("edge", "replica")) == "edge.replicas"
    assert guess(("history_size",)) == "channels.history_size"
    assert guess(("xyzzy",)) is None


def test_every_setting_has_a_meaning() -> None:
    for name in every():
        assert name.field is not None
        assert name.field.description, f"{name.parts} has no docstring"


def test_reference_in_docs_is_up_to_date() -> None:
    """Else: `raywire config --reference > docs/settings.md`."""
    assert (DOCS / "settings.md").read_text() == reference()

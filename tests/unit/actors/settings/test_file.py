"""Settings from file, environment and options: who wins, where it comes from, what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.errors import SettingsError
from actors.settings.file import Loaded, load


def write(directory: Path, text: str) -> Path:
    file = directory / "raywire.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def errors_of(
    file: Path | None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(file, environ or {}, overrides or {})
    return str(caught.value).splitlines()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestPrecedence:
    def test_later_sources_win_and_each_value_names_its_own(self, tmp_path: Path) -> None:
        """An option beats the environment, which beats the file, which beats the default."""
        file = write(
            tmp_path, "app: a\nqueue:\n  partitions: 2\n  entries_max: 2\nredis:\n  timeout_s: 1\n"
        )

        loaded = load(
            file,
            {"RAYWIRE_QUEUE__ENTRIES_MAX": "3", "RAYWIRE_REDIS__TIMEOUT_S": "2"},
            {"redis.timeout_s": 3.0, "redis.url": None},
        )

        settings, sources = loaded.settings, loaded.sources
        assert (settings.app, sources["app"]) == ("a", "raywire.yaml:1")
        assert (settings.queue.partitions, sources["queue.partitions"]) == (2, "raywire.yaml:3")
        assert settings.queue.entries_max == 3
        assert sources["queue.entries_max"] == "RAYWIRE_QUEUE__ENTRIES_MAX"
        assert settings.redis.timeout_s == 3.0
        assert sources["redis.timeout_s"] == "--redis-timeout-s"
        assert sources["redis.url"] == sources["nozzle.count"] == "default"

    def test_option_names_its_flag(self) -> None:
        loaded = load(None, {}, {"redis.url": "redis://h"})

        assert loaded.sources["redis.url"] == "--redis"

    def test_file_is_named_by_option_then_variable_then_directory(self, tmp_path: Path) -> None:
        """`--settings`, `RAYWIRE_SETTINGS`, `./raywire.yaml`, the packaged one, none."""
        write(tmp_path, "app: here")
        for name in ("option", "variable", "fallback"):
            (tmp_path / name).write_text(f"app: {name}")
        environ = {"RAYWIRE_SETTINGS": str(tmp_path / "variable")}
        fallback = tmp_path / "fallback"

        def app(file: Path | None, environ: Mapping[str, str]) -> str:
            return load(file, environ, {}, fallback=fallback).settings.app

        assert app(tmp_path / "option", environ) == "option"
        assert app(None, environ) == "variable"
        assert app(None, {}) == "here"
        (tmp_path / "raywire.yaml").unlink()
        assert app(None, {}) == "fallback"
        assert load(None, {}, {}, fallback=fallback).sources["app"] == "demo"
        assert load(None, {}, {}).file is None

    def test_every_setting_has_a_source(self, tmp_path: Path) -> None:
        file = write(tmp_path, "stages: [{name: a, replicas: 2}]\nnamespaces: {news: {}}\n")

        sources = load(file, {}, {}).sources

        assert sources["stages.0.replicas"] == "raywire.yaml:1"
        assert sources["stages.0.attempts"] == "default"
        assert sources["namespaces.news.presence"] == "default"


class TestPaths:
    def test_paths_of_a_file_are_relative_to_it(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        file = write(tmp_path / "etc", "data: ../var\ncode: lib\n")

        settings = load(file, {}, {}).settings

        assert settings.data == tmp_path / "etc" / ".." / "var"
        assert settings.code == tmp_path / "etc" / "lib"

    def test_key_files_of_a_file_are_relative_to_it(self, tmp_path: Path) -> None:
        """And only they: the text of a key is left alone."""
        (tmp_path / "etc").mkdir()
        text = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
        keys = f'["a.pem", "/b.pem", {json.dumps(text)}]'
        file = write(tmp_path / "etc", f"auth:\n  tokens:\n    public_keys: {keys}\n")

        found = load(file, {}, {}).settings.auth.tokens.public_keys

        assert found == (str(tmp_path / "etc" / "a.pem"), "/b.pem", text)

    def test_private_key_is_refused_without_being_shown(self, tmp_path: Path) -> None:
        """Given in the place of a public one, by mistake."""
        key = "-----BEGIN PRIVATE KEY-----AAAA"
        file = write(tmp_path, f"auth:\n  tokens:\n    public_keys: [{json.dumps(key)}]\n")

        (line,) = errors_of(file)

        assert line.startswith("auth.tokens.public_keys (raywire.yaml:3): ")
        assert "give the public one" in line
        assert "AAAA" not in line

    @pytest.mark.parametrize(
        "text", ["data: ~no-such-user/x", "auth: {tokens: {public_keys: [~no-such-user/x]}}"]
    )
    def test_home_of_a_user_that_there_is_not_is_refused(self, tmp_path: Path, text: str) -> None:
        (of_variable,) = errors_of(None, {"RAYWIRE_CODE": "~no-such-user/x"})
        (of_option,) = errors_of(None, None, {"data": Path("~no-such-user/x")})
        (of_file,) = errors_of(write(tmp_path, text))

        assert of_variable.startswith("code (RAYWIRE_CODE): ")
        assert of_option.startswith("data (--data): is '~no-such-user/x': ")
        assert "(raywire.yaml:1): " in of_file
        for line in (of_variable, of_option, of_file):
            assert line.endswith("there is no home directory ~no-such-user: write the path in full")

    def test_other_paths_are_relative_to_the_current_directory(self, tmp_path: Path) -> None:
        settings = load(None, {"RAYWIRE_DATA": "var"}, {"code": Path("lib")}).settings

        assert (settings.data, settings.code) == (tmp_path / "var", tmp_path / "lib")

    def test_code_is_beside_the_file_unless_set(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        file = write(tmp_path / "etc", "app: a")

        assert load(file, {}, {}).settings.code == tmp_path / "etc"
        assert load(None, {}, {}).settings.code == tmp_path


class TestEnvironment:
    def test_values_are_yaml_and_text_needs_no_quotes(self) -> None:
        loaded = load(
            None,
            {
                "RAYWIRE_CLIENT__ALLOWED_ORIGINS": "[https://a.example, https://b.example]",
                "RAYWIRE_CLIENT__INSECURE": "true",
                "RAYWIRE_AUTH__API_KEY": "12345",
                "RAYWIRE_NAMESPACES__NEWS__HISTORY_SIZE": "10",
                "RAYWIRE_STAGES": "[{name: a}, {name: b}]",
                "RAYWIRE_STAGES__1__REPLICAS": "4",
                "RAYWIRE_REDIS__URL": "",
            },
            {},
        )

        settings = loaded.settings
        assert settings.client.allowed_origins == ("https://a.example", "https://b.example")
        assert settings.client.insecure
        assert settings.auth.api_key is not None
        assert settings.auth.api_key.get_secret_value() == "12345"
        assert settings.namespaces["news"].history_size == 10
        assert [stage.replicas for stage in settings.stages] == [1, 4]
        assert settings.redis.url is None

    def test_variable_means_a_namespace_of_the_file_with_a_dash(self, tmp_path: Path) -> None:
        file = write(tmp_path, "namespaces: {my-news: {history_size: 1}}")

        loaded = load(file, {"RAYWIRE_NAMESPACES__MY_NEWS__HISTORY_SIZE": "2"}, {})

        assert loaded.settings.namespaces["my-news"].history_size == 2

    def test_mapping_is_joined_with_what_the_file_gives(self, tmp_path: Path) -> None:
        file = write(tmp_path, "queue: {partitions: 4, entries_max: 4}")

        queue = load(file, {"RAYWIRE_QUEUE": "{entries_max: 5}"}, {}).settings.queue

        assert (queue.partitions, queue.entries_max) == (4, 5)

    @pytest.mark.parametrize(
        ("variable", "remedy"),
        [
            ("RAYWIRE_QUEUE_ENTRIES_MAX", "did you mean RAYWIRE_QUEUE__ENTRIES_MAX?"),
            ("RAYWIRE_QUEUE__ENTRY_MAX", "did you mean RAYWIRE_QUEUE__ENTRIES_MAX?"),
            ("RAYWIRE_DATTA", "did you mean RAYWIRE_DATA?"),
            ("RAYWIRE_XYZZY", "take it out"),
            ("RAYWIRE_QUEUE__", "take it out"),
        ],
    )
    def test_unknown_variable_is_refused_with_a_guess(self, variable: str, remedy: str) -> None:
        (error,) = errors_of(None, {variable: "1"})

        assert error.startswith(f"{variable}: unknown setting")
        assert remedy in error

    @pytest.mark.parametrize("member", ["2", "\u00b2", "A"])
    def test_member_that_a_list_lacks_is_refused(self, member: str) -> None:
        (error,) = errors_of(None, {f"RAYWIRE_STAGES__{member}__NAME": "a"})

        assert f"stages has no member {member.lower()}" in error
        assert "RAYWIRE_STAGES" in error

    def test_name_of_digits_is_a_name(self) -> None:
        """Members of a list alone are counted."""
        loaded = load(None, {"RAYWIRE_NAMESPACES__2024__HISTORY_SIZE": "2"}, {})

        assert loaded.settings.namespaces["2024"].history_size == 2

    @pytest.mark.parametrize(
        ("text", "variable", "error"),
        [
            ("queue: 5", "QUEUE__PARTITIONS", "queue (raywire.yaml:1): is 5"),
            ("stages: [5]", "STAGES__0__REPLICAS", "stages.0 (raywire.yaml:1): is 5"),
            (
                "namespaces: [1]",
                "NAMESPACES__A__PRESENCE",
                "namespaces (raywire.yaml:1): is a list",
            ),
            (
                "stages: [{transforms: [{use: filter, options: [1]}]}]",
                "STAGES__0__TRANSFORMS__0__OPTIONS__X",
                "stages.0.transforms.0.options (raywire.yaml:1): is a list",
            ),
        ],
    )
    def test_variable_hides_no_error_of_the_file(
        self, tmp_path: Path, text: str, variable: str, error: str
    ) -> None:
        """What holds no names is told, and not replaced because of one of its members."""
        found = errors_of(write(tmp_path, text), {f"RAYWIRE_{variable}": "2"})

        assert found == [f"{error}: give names with values"]

    def test_variable_fills_what_is_empty(self, tmp_path: Path) -> None:
        """A mapping, and a member of a list; within options any value may be replaced."""
        file = write(
            tmp_path,
            "queue:\nstages:\n  -\n  - {name: b, transforms: [{use: 'm:f', options: {a: 1}}]}\n",
        )
        environ = {
            "RAYWIRE_QUEUE__PARTITIONS": "2",
            "RAYWIRE_STAGES__0__REPLICAS": "3",
            "RAYWIRE_STAGES__1__TRANSFORMS__0__OPTIONS__A__B": "4",
        }

        settings = load(file, environ, {}).settings

        assert (settings.queue.partitions, settings.stages[0].replicas) == (2, 3)
        assert settings.stages[1].transforms[0].options == {"a": {"b": 4}}

    def test_what_kubernetes_sets_for_a_service_is_no_setting(self) -> None:
        """A Service named raywire puts these into every pod of its namespace."""
        environ = dict.fromkeys(
            [
                "RAYWIRE_SERVICE_HOST",
                "RAYWIRE_SERVICE_PORT_HTTP",
                "RAYWIRE_PORT",
                "RAYWIRE_PORT_8000_TCP_ADDR",
                "RAYWIRE_EDGE_PORT_8000_TCP",
            ],
            "x",
        )

        assert load(None, environ, {}).settings.app == "raywire"

    def test_variables_of_options_are_no_settings(self) -> None:
        assert load(None, {"RAYWIRE_TOKEN": "x", "OTHER": "x"}, {}).settings.app == "raywire"


class TestErrors:
    def test_all_errors_are_told_at_once_with_line_and_remedy(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            "ap: x\n"
            "queue:\n"
            "  partitions: 0\n"
            "  entrys_max: 3\n"
            "nozzle: {pace_s: soon}\n"
            "entries_max: 4\n"
            "namespaces: {1: {}}\n"
            "channels: {force_recovery_mode: all}\n"
            "edge: {listen: 8000}\n",
        )

        assert sorted(errors_of(file, {"RAYWIRE_NOZZLE__WINDOW": "many"})) == [
            "ap (raywire.yaml:1): unknown setting: did you mean app?",
            "channels.force_recovery_mode (raywire.yaml:8): is 'all': give 'stream' or 'cache'",
            "edge.listen (raywire.yaml:9): is 8000: give text (put it in quotes)",
            "entries_max (raywire.yaml:6): unknown setting: did you mean queue.entries_max?",
            "namespaces.1 (raywire.yaml:7): the name is not text: put it in quotes",
            "nozzle.pace_s (raywire.yaml:5): is 'soon': give a number",
            "nozzle.window (RAYWIRE_NOZZLE__WINDOW): is 'many': give a whole number",
            "queue.entrys_max (raywire.yaml:4): unknown setting: did you mean queue.entries_max?",
            "queue.partitions (raywire.yaml:3): is 0: give 1 or more",
        ]

    def test_settings_that_do_not_fit_together_are_refused(self, tmp_path: Path) -> None:
        file = write(tmp_path, "nozzle: {count: 9}")

        (error,) = errors_of(file)

        assert error.startswith("settings (raywire.yaml:1): nozzle.count is more than")

    def test_name_that_stands_twice_is_refused(self, tmp_path: Path) -> None:
        """PyYAML would take the last one silently."""
        file = write(tmp_path, "queue:\n  partitions: 1\n  partitions: 2\n")

        assert errors_of(file) == [
            "queue.partitions (raywire.yaml:3): stands twice, first in line 2: remove one"
        ]

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("a:\n\tb: 1", "settings (raywire.yaml:2): not YAML"),
            ("a: [1", "settings (raywire.yaml:1): not YAML"),
            ("a: &x [*x]", "settings (raywire.yaml:1): not YAML: nested too deep"),
            ("a: !!python/object:os.system x", "settings (raywire.yaml:1): not YAML"),
            ("a: 1\nb: !!timestamp x", "settings (raywire.yaml:2): not YAML: 'x' is no timestamp"),
            ("a: !!bool x", "settings (raywire.yaml:1): not YAML: 'x' is no bool"),
            ("a: 1\nb: 2020-13-45", "settings (raywire.yaml:2): not YAML: '2020-13-45' is no"),
            ("- a", "settings (raywire.yaml:1): holds no settings"),
            ("a: 1\n---\nb: 2", "settings (raywire.yaml:2): not YAML"),
        ],
    )
    def test_text_that_is_not_settings_is_refused(
        self, tmp_path: Path, text: str, error: str
    ) -> None:
        (found,) = errors_of(write(tmp_path, text))

        assert found.startswith(error)

    def test_file_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "raywire.yaml"
        file.write_bytes(b"app: \xff")

        assert "not text in UTF-8" in errors_of(file)[0]

    def test_missing_file_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        (error,) = errors_of(tmp_path / "no.yaml")

        assert "no.yaml cannot be read" in error
        assert "--settings" in error

    def test_empty_file_gives_the_defaults(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "# nothing\n"), {}, {}).settings.app == "raywire"

    def test_anchors_and_merges_work_as_in_yaml(self, tmp_path: Path) -> None:
        file = write(
            tmp_path,
            "namespaces:\n"
            "  a: &a {history_size: 5, presence: true}\n"
            "  b: {<<: *a, history_size: 6}\n"
            "  c: *a\n",
        )

        namespaces = load(file, {}, {}).settings.namespaces

        assert (namespaces["b"].history_size, namespaces["b"].presence) == (6, True)
        assert namespaces["c"] == namespaces["a"]


class TestSecrets:
    def test_value_of_a_secret_is_in_no_error(self, tmp_path: Path) -> None:
        file = write(tmp_path, "auth: {api_key: 987654, token_secret: [hidden], api_kee: hidden}")

        errors = errors_of(file, {"RAYWIRE_AUTH__TOKEN": "hidden"})

        assert len(errors) == 4
        assert not any("987654" in error or "hidden" in error for error in errors)

    def test_empty_secret_is_refused(self, tmp_path: Path) -> None:
        """It would let everybody in."""
        (error,) = errors_of(write(tmp_path, 'auth: {api_key: ""}'))

        assert error.startswith("auth.api_key (raywire.yaml:1): is empty")

    @pytest.mark.parametrize("key", ["schl\u00fcssel", " hid", "hid ", "h\tid", "h\nid", "\x7f"])
    def test_api_key_that_fits_into_no_header_is_refused(self, tmp_path: Path, key: str) -> None:
        """It would match nothing."""
        (error,) = errors_of(write(tmp_path, f"auth: {{api_key: {json.dumps(key)}}}"))

        assert error.startswith("auth.api_key (raywire.yaml:1): is not right: take printable ")
        assert key not in error

    def test_file_with_secrets_that_others_can_read_is_warned_of(self, tmp_path: Path) -> None:
        file = write(tmp_path, "auth: {api_key: abc}\nredis: {url: 'redis://:pw@h'}")

        def warnings() -> tuple[str, ...]:
            loaded: Loaded = load(file, {}, {})
            return loaded.warnings

        assert warnings() == ()
        file.chmod(0o644)
        (warning,) = warnings()
        assert "auth.api_key" in warning
        assert "redis.url" in warning
        assert "chmod 600" in warning
        assert "abc" not in warning
        file.write_text("redis: {url: 'redis://h'}")
        assert warnings() == ()

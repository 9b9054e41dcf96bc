"""The configuration: what is read, which source wins, and how a mistake is reported."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serac_gateway.config.loading import load_config
from serac_gateway.config.model import ConflictPolicy, FailurePolicy, GatewayConfig
from serac_gateway.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs" / "gateway"


def refused(text: str, folder: Path) -> str:
    path = folder / "gateway.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environment={})
    assert str(path) in caught.value.message
    return caught.value.message


def keys(config: msgspec.Struct, prefix: str = "") -> Iterator[str]:
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, msgspec.Struct):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def documented_keys(tree: dict[str, object], config: msgspec.Struct, prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        section = getattr(config, name)
        if isinstance(section, msgspec.Struct) and isinstance(value, dict):
            yield from documented_keys(value, section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_development_file_is_the_defaults() -> None:
    assert load_config(CONFIGS / "dev.toml", environment={}) == GatewayConfig()


def test_the_development_file_documents_every_key_and_no_other() -> None:
    """Commented-out keys count, so they are uncommented before reading; their examples must be valid."""
    text = re.sub(r"^# (\w+ = )", r"\1", (CONFIGS / "dev.toml").read_text("utf-8"), flags=re.MULTILINE)
    assert set(documented_keys(tomllib.loads(text), GatewayConfig())) == set(keys(GatewayConfig()))
    assert msgspec.convert(tomllib.loads(text), GatewayConfig) != GatewayConfig()


def test_the_production_file_loads_and_asks_for_a_store_and_an_upstream() -> None:
    config = load_config(CONFIGS / "production.toml", environment={})
    assert config.server.host == "0.0.0.0"
    assert config.store.url is not None
    assert config.upstream.url is not None


def test_agreement_of_others_needs_api_keys(tmp_path: Path) -> None:
    """Without them nobody is known to be another person, so the gateway does not start."""
    path = tmp_path / "gateway.toml"
    rules = "[governance.namespaces.legal]\napprovals = 2\n"
    path.write_text(rules, "utf-8")
    with pytest.raises(
        ConfigError, match=r"governance\.namespaces\.legal\.approvals.*access\.required = true"
    ):
        load_config(path, environment={})
    path.write_text(f"[access]\nrequired = true\n{rules}", "utf-8")
    assert load_config(path, environment={}).governance.approvals_of("legal") == 2
    assert load_config(path, environment={}).governance.approvals_of("default") == 0


def test_environment_beats_the_file_and_the_command_line_beats_both(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        'data_dir = "/file"\n[server]\nport = 1\nhost = "file"\n[routing]\ncandidates = 2', "utf-8"
    )
    config = load_config(
        path,
        environment={"SERAC_SERVER__PORT": "2", "SERAC_SERVER__HOST": "env", "SERAC_DATA_DIR": "/env"},
        overrides={"server": {"port": 3, "host": None}},
    )
    assert (config.server.port, config.server.host) == (3, "env")
    assert config.data_path == Path("/env")
    assert config.routing.candidates == 2


def test_variables_carry_numbers_text_and_choices() -> None:
    config = load_config(
        environment={
            "SERAC_ROUTING__SCOPE_THRESHOLD": "0.25",
            "SERAC_ROUTING__ON_FAILURE": "closed",
            "SERAC_STORE__URL": "redis://:secret@store:6379/1",
            "PATH": "/bin",
        }
    )
    assert config.routing.scope_threshold == 0.25
    assert config.routing.on_failure is FailurePolicy.CLOSED
    assert config.store.url == "redis://:secret@store:6379/1"


def test_secrets_and_variables_of_other_parts_are_no_config_keys() -> None:
    environment = {"SERAC_UPSTREAM_API_KEY": "sk-1", "SERAC_DATA": "/data", "SERAC_URL": "http://gateway"}
    assert load_config(environment=environment) == GatewayConfig()


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files pass a variable on as empty where the user has not set it."""
    assert load_config(environment={"SERAC_UPSTREAM__URL": ""}).upstream.url is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "unknown key 'server.prot'; allowed in [server] are host, port, "),
        ("[servre]\nport = 1", "unknown key 'servre'; allowed are data_dir, server, "),
        ("port = 1", "unknown key 'port'; allowed are data_dir, server, "),
        ("[server]\nport = 'http'", "server.port = 'http' is not allowed: expected `int`, got `str`"),
        ("[server]\nport = 70000", "server.port = 70000 is not allowed: expected `int` <= 65535"),
        (
            "[models]\nanswer_timeout_s = 0",
            "models.answer_timeout_s = 0 is not allowed: expected `float` > 0",
        ),
        ("[upstream]\nmax_connections = true", "upstream.max_connections = True is not allowed"),
        ("[routing]\ncandidates = 9", "routing.candidates = 9 is not allowed: expected `int` <= 8"),
        ("[routing]\nscope_threshold = 1.5", "routing.scope_threshold = 1.5 is not allowed"),
        (
            "[routing]\non_failure = 'ajar'",
            "routing.on_failure = 'ajar' is not allowed: expected one of open, closed",
        ),
        ("server = 8080", "server = 8080 is not allowed"),
        ("[upstream]\nurl = 'localhost:8000'", "upstream.url = 'localhost:8000' is not allowed"),
        ("[server\nport = 1", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_names_key_value_and_what_is_allowed(
    text: str, expected: str, tmp_path: Path
) -> None:
    message = refused(text, tmp_path)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:hunter2@host/v1", "'http://host/v1' has a user or password"),
        ("https://hunter2@host:8000/v1?key=hunter2", "'https://host:8000/v1' has a user or password"),
        ("http://host/v1#hunter2", "'http://host/v1' has a fragment"),
        ("http://host/v1#", "'http://host/v1' has a fragment"),
        ("http://:80/v1?hunter2", "'http://:80/v1' is not usable"),
        ("http://host:99999/v1", "'http://host:99999/v1' is not usable"),
        ("http://[::1/v1", "is not usable"),
    ],
)
@pytest.mark.parametrize("key", ["upstream.url", "upstreams.x.url"])
def test_an_upstreams_url_that_cannot_work_is_refused_without_its_secrets(
    url: str, said: str, key: str, tmp_path: Path
) -> None:
    models = "" if key == "upstream.url" else "upstreams.x.models = ['m']"
    message = refused(f"{key} = {url!r}\n{models}", tmp_path)
    assert f"{key} " in message
    assert said in message
    assert "hunter2" not in message


@pytest.mark.parametrize("url", ["http://user:hunter2@store", "user:hunter2@store:6379"])
def test_a_password_in_a_refused_url_is_not_shown(url: str, tmp_path: Path) -> None:
    message = refused(f"[store]\nurl = {url!r}", tmp_path)
    assert "store.url" in message
    assert "hunter2" not in message


def test_a_mistake_in_the_environment_or_on_the_command_line_says_where_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^environment: unknown key 'server\.prot'"):
        load_config(environment={"SERAC_SERVER__PROT": "1"})
    with pytest.raises(ConfigError, match=r"^command line: store\.url = 'localhost' is not allowed"):
        load_config(environment={}, overrides={"store": {"url": "localhost"}})


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml': No such file"):
        load_config(tmp_path / "absent.toml", environment={})
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, environment={})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml' is not valid TOML"):
        load_config(tmp_path / "binary.toml", environment={})


def test_the_data_folder_is_under_the_users_data_folder_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert GatewayConfig().data_path == Path("/xdg/serac_gateway")
    assert GatewayConfig(data_dir="/mine").data_path == Path("/mine")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"traffic": {"redact": [5]}}, "traffic.redact[0] = [5] is not allowed: expected `str`, got `int`"),
        (
            {"routing": {"namespaces": {"acme": {"conflicts": "first"}}}},
            "routing.namespaces[...].conflicts = {'acme': {'conflicts': 'first'}} is not allowed",
        ),
        ({"routing": {"namespaces": {"acme": {"speed": 1}}}}, "unknown field `speed`"),
        ({"routing": {"conflicts": "first"}}, "expected one of newest_wins, reject, supersede"),
    ],
)
def test_a_bad_value_inside_a_list_or_a_table_is_named(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(overrides=tree)
    assert message in refused.value.message


def test_a_namespace_may_have_a_policy_of_its_own_and_the_rest_of_the_others() -> None:
    config = load_config(overrides={"routing": {"namespaces": {"acme": {"conflicts": "reject"}}}})
    assert config.routing.conflicts_of("acme") is ConflictPolicy.REJECT
    assert config.routing.conflicts_of("other") is ConflictPolicy.NEWEST_WINS
    assert config.routing.tasks_of("acme") is config.routing.tasks

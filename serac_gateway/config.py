"""The gateway's configuration: one frozen tree from a TOML file, environment overrides on top.

Secrets come from the environment only. Unknown keys are refused by name.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from serac_gateway.errors import ConfigError

ENVIRONMENT_PREFIX = "SERAC_"
UPSTREAM_API_KEY_VARIABLE = "SERAC_UPSTREAM_API_KEY"
_SECRET_VARIABLES = frozenset({UPSTREAM_API_KEY_VARIABLE})
_OTHER_VARIABLES = frozenset({"SERAC_DATA", "SERAC_URL", "SERAC_NAMESPACE", "SERAC_TEST_REDIS_URL"})
"""Read elsewhere: the public data's folder, the CLI's server and namespace, the tests' redis-server."""

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class FailurePolicy(StrEnum):
    """What happens to a request that the gateway itself cannot decide."""

    OPEN = "open"
    """It reaches the base model unchanged."""
    CLOSED = "closed"
    """It is refused with 503."""


class ServerConfig(_Section, frozen=True, kw_only=True):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    max_control_body_bytes: PositiveInt = 10_000_000
    """Limit of a body on /serac/v1, but for /edits:import, which streams."""
    max_classified_body_bytes: PositiveInt = 64_000_000
    """A /v1 request beyond it is passed on unclassified."""
    drain_timeout_s: PositiveFloat = 30.0


class StoreConfig(_Section, frozen=True, kw_only=True):
    """The edit store."""

    url: str | None = None
    """redis://, rediss:// or unix://; None: an embedded Valkey in the data folder."""


class UpstreamConfig(_Section, frozen=True, kw_only=True):
    """The base model's server."""

    url: str | None = None
    """Base URL up to and with /v1; None: the embedded base model."""
    connect_timeout_s: PositiveFloat = 10.0
    response_timeout_s: PositiveFloat = 600.0
    """From the request's last byte to the response's headers."""
    chunk_timeout_s: PositiveFloat = 300.0
    """The longest gap between two chunks of a response. The total is unlimited."""
    max_connections: PositiveInt = 1_000


class ModelsConfig(_Section, frozen=True, kw_only=True):
    """Which models decide and answer."""

    encoder: str | None = None
    """A sentence-transformers id or path; None: the embedded all-MiniLM-L6-v2."""
    scope_classifier: str | None = None
    """A folder that training wrote; None: the shipped one."""
    counterfactual: str | None = None
    """A causal LM id or path; None: the embedded Gemma 3 270M."""
    decision_threads: PositiveInt = 2
    answer_threads: PositiveInt = 1
    max_queued_answers: PositiveInt = 32
    """In-scope requests beyond these wait for no answer: the failure policy applies."""
    max_answer_tokens: PositiveInt = 64
    answer_timeout_s: PositiveFloat = 30.0


class RoutingConfig(_Section, frozen=True, kw_only=True):
    """How requests are decided."""

    candidates: Annotated[int, msgspec.Meta(ge=1, le=8)] = 8
    scope_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """None: the one calibrated with the classifier."""
    on_failure: FailurePolicy = FailurePolicy.OPEN


class GatewayConfig(_Section, frozen=True, kw_only=True):
    """The whole tree."""

    data_dir: str | None = None
    """None: the user's XDG data folder."""
    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    models: ModelsConfig = ModelsConfig()
    routing: RoutingConfig = RoutingConfig()

    @property
    def data_path(self) -> Path:
        """The data folder."""
        return Path(self.data_dir or platformdirs.user_data_dir("serac_gateway")).expanduser()


def load_config(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object] | object] | None = None,
) -> GatewayConfig:
    """The configuration from defaults, then the file, then `SERAC_SECTION__KEY` variables, then `overrides`.

    `SERAC_DATA_DIR` sets the top-level key. Overrides are nested as the tree is; None values are left out.

    Raises:
        ConfigError: A file that cannot be read, an unknown key or a value out of range, named.
    """
    tree: dict[str, object] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text("utf-8"))
        except OSError as exc:
            raise ConfigError(f"cannot read the config file {str(path)!r}: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise ConfigError(f"config file {str(path)!r} is not valid TOML: {exc}") from exc
    _merge(tree, _from_environment(os.environ if environment is None else environment))
    _merge(tree, overrides or {})
    try:
        return msgspec.convert(tree, GatewayConfig)
    except msgspec.ValidationError as exc:
        where = f"config file {str(path)!r}" if path else "configuration"
        raise ConfigError(f"{where}: {exc}; see configs/gateway/ for every key and its meaning") from exc


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _SECRET_VARIABLES | _OTHER_VARIABLES:
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        branch = tree
        for section in sections:
            inner = branch.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"environment variable {name!r} contradicts another one")
            branch = inner
        branch[key] = _scalar(text)
    return tree


def _scalar(text: str) -> object:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _merge(tree: dict[str, object], changes: Mapping[str, object]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            branch = tree.setdefault(key, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"config key {key!r} must be a table")
            _merge(branch, value)
        elif value is not None:
            tree[key] = value

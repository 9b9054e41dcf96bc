"""Reads the configuration: defaults, a TOML file, environment, command line; later sources win.

Unknown keys are refused by name.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from serac_gateway.config.model import (
    API_KEY_VARIABLE,
    BACKUP_KEY_VARIABLE,
    COUNTERFACTUAL_API_KEY_VARIABLE,
    ENGINE_SECRET_VARIABLE,
    KEY_PEPPER_VARIABLE,
    OIDC_CLIENT_SECRET_VARIABLE,
    UPSTREAM_API_KEY_VARIABLE,
    WEBHOOK_SECRET_VARIABLE,
    GatewayConfig,
    OidcConfig,
)
from serac_gateway.config.upstream_url import parse_upstream_url
from serac_gateway.config.webhook_targets import check_webhooks
from serac_gateway.errors import ConfigError

ENVIRONMENT_PREFIX = "SERAC_"

_SECRET_VARIABLES = frozenset(
    {
        UPSTREAM_API_KEY_VARIABLE,
        COUNTERFACTUAL_API_KEY_VARIABLE,
        KEY_PEPPER_VARIABLE,
        BACKUP_KEY_VARIABLE,
        ENGINE_SECRET_VARIABLE,
        OIDC_CLIENT_SECRET_VARIABLE,
        API_KEY_VARIABLE,
    }
)
_SECRET_PREFIXES = (f"{UPSTREAM_API_KEY_VARIABLE}_", f"{WEBHOOK_SECRET_VARIABLE}_")
"""Followed by the name of an upstream or webhook."""
_OTHER_VARIABLES = frozenset({"SERAC_DATA", "SERAC_URL", "SERAC_NAMESPACE"})
"""Read by other modules: the folder of the public data, the CLI's server and namespace."""

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key",
                             "x-serac-api-key"})  # fmt: skip

_USERINFO = re.compile(r"(?<![^/@])[^/@]*@")
"""User and password in a URL, which no message may contain."""


def load_config(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> GatewayConfig:
    """The configuration from defaults, then the file, then `SERAC_SECTION__KEY` variables, then `overrides`.

    `SERAC_DATA_DIR` sets the top-level key; an empty variable counts as not set. Overrides are nested like
    the tree; None values are ignored.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or a value is not allowed, as the message says.
    """
    tree: dict[str, object] = {}
    config = GatewayConfig()
    for source, layer in (
        (f"config file {str(path)!r}", {} if path is None else _read(path)),
        ("environment", _from_environment(os.environ if environment is None else environment)),
        ("command line", overrides or {}),
    ):
        tree = _merged(tree, layer)
        try:
            config = msgspec.convert(tree, GatewayConfig)
        except msgspec.ValidationError as exc:
            raise ConfigError(f"{source}: {_described(exc, tree)}") from exc
        try:
            _check_upstream_urls(config)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error.message}", field=error.field) from error
    _check_governance(config)
    _check_audience_sources(config)
    check_webhooks(config.webhooks)
    _check_oidc(config.oidc)
    return config


def without_userinfo(value: str) -> str:
    """`value` without the user and password of a URL in it."""
    return _USERINFO.sub("***@", value)


def _check_upstream_urls(config: GatewayConfig) -> None:
    if config.upstream.url is not None:
        parse_upstream_url(config.upstream.url)
    for name, upstream in config.upstreams.items():
        parse_upstream_url(upstream.url, key=f"upstreams.{name}.url")


def _check_governance(config: GatewayConfig) -> None:
    """Without API keys nobody is known to be somebody else, so nobody can agree to what another proposes."""
    for name, governance in config.governance.namespaces.items():
        if governance.approvals and not config.demands_keys:
            raise ConfigError(
                f"governance.namespaces.{name}.approvals is {governance.approvals}, but no API keys are"
                " demanded, so nobody is known to be another person; set access.required = true, or approvals"
                " = 0",
                field=f"governance.namespaces.{name}.approvals",
            )


def _check_audience_sources(config: GatewayConfig) -> None:
    """A label has one source, and no header that carries a secret, which its values would show."""
    for label, source in config.routing.audience_from.items():
        key = f"routing.audience_from.{label}"
        of_credential = source.key or source.claim is not None
        if (source.header is None) is not of_credential:
            raise ConfigError(
                f'{key} needs exactly one source; give header = "x-{label}", or key = true, claim = "{label}"'
                " or both of these",
                field=key,
            )
        if source.claim is not None and config.oidc.issuer is None:
            raise ConfigError(
                f"{key}.claim is {source.claim!r}, but no tokens are taken; set oidc.issuer, or give another"
                " source",
                field=f"{key}.claim",
            )
        if source.header is not None and source.header.lower() in _SECRET_HEADERS:
            raise ConfigError(
                f"{key}.header is {source.header!r}, which carries secrets; name a header of its own, such as"
                f' "x-{label}"',
                field=f"{key}.header",
            )


def _check_oidc(oidc: OidcConfig) -> None:
    """What tokens are checked by is complete, and travels as it must: keys by http could be anybody's."""
    if oidc.issuer is None:
        if oidc != OidcConfig():
            raise ConfigError("oidc has settings and no issuer; set oidc.issuer", field="oidc.issuer")
        return
    for name, value in (("audience", oidc.audience), ("roles", oidc.roles)):
        if not value:
            raise ConfigError(
                f"oidc.{name} is empty, so no token could be used; "
                + (
                    "give this gateway's name at the identity provider"
                    if name == "audience"
                    else 'map a group, as in [oidc.roles]: editors = { role = "edit" }'
                ),
                field=f"oidc.{name}",
            )
    urls = {
        "issuer": oidc.issuer,
        "jwks_url": oidc.jwks_url,
        "login_redirect_uri": oidc.login_redirect_uri,
    }
    for name, url in urls.items():
        if url is not None and not is_safe_url(url):
            raise ConfigError(
                f"oidc.{name} is {without_userinfo(url)!r}; use https, or http on this machine alone, and no"
                " user or password in it",
                field=f"oidc.{name}",
            )
    if (oidc.login_client_id is None) is not (oidc.login_redirect_uri is None):
        raise ConfigError(
            "oidc.login_client_id and oidc.login_redirect_uri belong together; give both, or neither",
            field="oidc.login_redirect_uri",
        )
    if "openid" not in oidc.login_scopes:
        raise ConfigError("oidc.login_scopes lacks 'openid'; add it", field="oidc.login_scopes")


def is_safe_url(url: str) -> bool:
    """Whether nobody on the way can read or change what is fetched there: https, or http on this machine."""
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return parts.username is None and bool(parts.hostname) and (parts.scheme == "https" or is_local)


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"cannot read the config file {str(path)!r}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"config file {str(path)!r} is not valid TOML: {exc}") from exc


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or not text:
            continue
        if name in _SECRET_VARIABLES | _OTHER_VARIABLES or name.startswith(_SECRET_PREFIXES):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        branch: dict[str, object] = {key: _scalar(text)}
        for section in reversed(sections):
            branch = {section: branch}
        tree = _merged(tree, branch)
    return tree


def _scalar(text: str) -> object:
    """A number or a boolean in TOML's notation; any other text unchanged."""
    try:
        tree = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = tree["value"]
    return value if isinstance(value, (bool, int, float)) and len(tree) == 1 else text


def _merged(tree: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(tree)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            branch = merged.get(key)
            merged[key] = _merged(branch if isinstance(branch, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _allowed_words(section: object, name: str) -> tuple[str, ...]:
    """The words that the key `name` of a section takes; () if it takes something else."""
    if not isinstance(section, msgspec.Struct) or name not in section.__struct_fields__:
        return ()
    hint = get_type_hints(type(section))[name]
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return tuple(kind)
    return ()


def _described(error: msgspec.ValidationError, tree: Mapping[str, object]) -> str:
    """A message for `error`: the key in full, its value, the allowed values."""
    what, _, path = str(error).partition(" - at `$.")
    where = path.rstrip("`")
    default: object = GatewayConfig()
    value: object = tree
    words: tuple[str, ...] = ()
    for name in where.split(".") if where else ():
        name, _, inside = name.partition("[")
        words = _allowed_words(default, name)
        default = getattr(default, name, None)
        value = value[name] if isinstance(value, Mapping) and name in value else value
        if inside:  # an element of a list or of a table has no default of its own
            default = None
    if (unknown := re.search("unknown field `([^`]*)`", what)) and isinstance(default, msgspec.Struct):
        key, section = (f"{where}.{unknown[1]}", f"in [{where}] ") if where else (unknown[1], "")
        return f"unknown key {key!r}; allowed {section}are {', '.join(default.__struct_fields__)}"
    printable = without_userinfo(value) if isinstance(value, str) else value
    allowed = f"expected one of {', '.join(words)}" if words else what.lower()
    return f"{where} = {printable!r} is not allowed: {allowed}"

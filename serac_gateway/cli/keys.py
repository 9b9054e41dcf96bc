"""`serac keys …`: make, list and revoke API keys, through a gateway or, with `--offline`, in the store."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from serac_gateway.auth.api_keys import ApiKey, ApiKeyDraft, check_key_id, checked_pepper, new_api_key
from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url, label_options
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.errors import ApiKeyNotFoundError, ConfigError, GatewayError, InvalidRequestError

if TYPE_CHECKING:
    from serac_gateway.auth.key_store import ApiKeyStore
    from serac_gateway.config.model import GatewayConfig

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

_ResultT = TypeVar("_ResultT")
_KEYS = "/serac/v1/keys"
_STORE = "The store itself"
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Work on the store as the gateway's configuration names it. An embedded one must not be in use.",
        rich_help_panel=_STORE,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="As of `serac serve`; means --offline.", rich_help_panel=_STORE)
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="As of `serac serve`; means --offline.", rich_help_panel=_STORE)
]
RedisOption = Annotated[
    str | None, typer.Option(help="As of `serac serve`; means --offline.", rich_help_panel=_STORE)
]


@keys_app.command()
def create(
    role: Annotated[
        Role,
        typer.Option(help="chat: ask; edit: also edits; approve: also others' proposals; admin: also keys."),
    ],
    name: Annotated[
        str | None, typer.Option(help="Whose key it is: the author of its edits.", show_default="the role")
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            help=f"The only one that it may use; may be repeated; {EVERY_NAMESPACE} for every one.",
            show_default="default; of an admin every one",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="In each gateway process.", show_default="unlimited")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VALUE",
            help="Of its requests, for edits with an audience, as tenant=acme; may be repeated.",
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="30m, 12h, 90d, 52w or 2027-01-31T00:00:00Z.", show_default="never")
    ] = None,
    url: UrlOption = None,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    redis: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once; only a digest of it is kept."""
    draft = ApiKeyDraft(
        name=name or role.value,
        role=role,
        namespaces=tuple(namespace) if namespace else None,
        requests_per_minute=requests_per_minute,
        labels=label_options(label),
        expires_at=None if expires is None else _moment(expires, datetime.now(UTC)),
    )
    settings = _offline_config(offline, config, data_dir, redis)
    made = _call(url, "POST", body=draft) if settings is None else _in_store(settings, _making(draft))
    if as_json:
        print_json(made)
        return
    stdout().print(made["text"], soft_wrap=True)
    stderr().print(
        f"[dim]key {made['key']['id']} of role {role.value}; keep it now, it is not shown again[/]",
        soft_wrap=True,
    )


@keys_app.command("list")
def list_keys(
    url: UrlOption = None,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    redis: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, oldest first; revoked and expired ones too."""
    settings = _offline_config(offline, config, data_dir, redis)
    keys = _call(url, "GET")["keys"] if settings is None else _in_store(settings, _listing)
    print_json(keys) if as_json else _print_table(keys)


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `serac keys list` shows it.")],
    url: UrlOption = None,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    redis: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key for good, within a second in every gateway on the store."""
    try:
        check_key_id(key_id)
    except InvalidRequestError as error:
        fail(error.message, EXIT_USAGE)
    settings = _offline_config(offline, config, data_dir, redis)
    key = _call(url, "DELETE", f"/{key_id}") if settings is None else _in_store(settings, _revoking(key_id))
    print_json(key) if as_json else stdout().print(f"revoked {key['id']}")


def _call(url: str | None, method: str, below: str = "", *, body: object = None) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import call_gateway

    return run(call_gateway(chosen_url(url), "", method, _KEYS + below, body=body))


def _offline_config(
    offline: bool, config_file: Path | None, data_dir: Path | None, redis: str | None
) -> GatewayConfig | None:
    """The gateway's configuration if a command works on the store itself, else None."""
    if not offline and config_file is None and data_dir is None and redis is None:
        return None
    from serac_gateway.config.loading import load_config

    overrides = {"data_dir": None if data_dir is None else str(data_dir), "store": {"url": redis}}
    try:
        return load_config(config_file, overrides=overrides)
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)


def _in_store(config: GatewayConfig, work: Callable[[ApiKeyStore], Awaitable[_ResultT]]) -> _ResultT:
    from serac_gateway.stores.open import open_configured_store

    async def worked() -> _ResultT:
        store = await open_configured_store(config)
        try:
            return await work(store.api_keys())
        finally:
            await store.close()

    try:
        return run(worked())
    except GatewayError as error:
        fail(error.message, EXIT_USAGE if isinstance(error, ConfigError) else EXIT_REFUSED)


def _making(draft: ApiKeyDraft) -> Callable[[ApiKeyStore], Awaitable[Any]]:
    async def make(keys: ApiKeyStore) -> dict[str, Any]:
        from serac_gateway.config.model import KEY_PEPPER_VARIABLE

        pepper = checked_pepper(os.environ.get(KEY_PEPPER_VARIABLE))
        new = new_api_key(draft, pepper=pepper, created_by="serac keys --offline", now=datetime.now(UTC))
        await keys.add(new.stored)
        return {"text": new.text, "key": msgspec.to_builtins(new.stored.key)}

    return make


async def _listing(keys: ApiKeyStore) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(stored.key) for stored in await keys.all()]


def _revoking(key_id: str) -> Callable[[ApiKeyStore], Awaitable[Any]]:
    async def revoke_it(keys: ApiKeyStore) -> dict[str, Any]:
        stored = await keys.revoke(key_id, datetime.now(UTC))
        if stored is None:
            raise ApiKeyNotFoundError(f"there is no API key {key_id!r}; `serac keys list` shows them")
        record: dict[str, Any] = msgspec.to_builtins(stored.key)
        return record

    return revoke_it


def _moment(text: str, now: datetime) -> datetime:
    """The time "90d" after `now`, or an ISO 8601 time with a zone."""
    try:
        if span := _SPAN.fullmatch(text):
            return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = datetime.min
    if moment.tzinfo is None:
        fail(f"--expires {text!r} is no time; write 30m, 12h, 90d, 52w or 2027-01-31T00:00:00Z", EXIT_USAGE)
    return moment


def _print_table(keys: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    listed = [msgspec.convert(record, ApiKey) for record in keys]
    labels = ["labels"] if any(key.labels for key in listed) else []  # else the others have the room
    table = Table("id", "name", "role", "namespaces", *labels, "a minute", "expires", "last used", "state")
    now = datetime.now(UTC)
    for key in listed:
        state = "active" if key.is_active(now) else "expired" if key.revoked_at is None else "revoked"
        table.add_row(
            key.id,
            escape(key.name),
            key.role.value,
            " ".join(key.namespaces),
            *[" ".join(f"{label}={value}" for label, value in key.labels.items()) for _ in labels],
            "" if key.requests_per_minute is None else f"{key.requests_per_minute:,}",
            _minute(key.expires_at, "never"),
            _minute(key.last_used_at, "never"),
            state,
            style=None if state == "active" else "dim",
        )
    stdout().print(table)


def _minute(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"

"""What a configuration puts at risk: who can reach the gateway, what travels in clear, who can read files."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from serac_gateway.auth.api_keys import checked_pepper
from serac_gateway.config.loading import without_userinfo
from serac_gateway.config.model import (
    EVERY_ORIGIN,
    KEY_PEPPER_VARIABLE,
    GatewayConfig,
    upstream_api_key_variable,
)
from serac_gateway.config.upstream_url import without_secrets
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.errors import ConfigError

_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_WRITTEN_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def config_findings(
    config: GatewayConfig, *, file: Path | None, environment: Mapping[str, str]
) -> list[Finding]:
    """What is at risk with a configuration that could be read."""
    where = "defaults and environment" if file is None else f"{str(file)!r} and environment"
    return [
        fine("config", f"read from {where}"),
        *_exposure(config),
        *_web_pages(config),
        *_in_clear(config, environment),
        *_pepper(config, environment),
        *_permissions(config, file),
    ]


def _exposure(config: GatewayConfig) -> Iterator[Finding]:
    host = config.server.host
    if config.is_loopback:
        yield fine("exposure", f"{host} is reached from this machine only")
    elif not config.demands_keys:
        yield failure(
            "exposure",
            f"whoever reaches {host!r} can change edits: no API keys are demanded",
            "leave access.required out or set it to true, or listen on 127.0.0.1",
        )
    elif any(not _is_loopback(proxy) for proxy in config.server.trusted_proxies):
        yield fine("exposure", f"{host} demands API keys, behind {', '.join(config.server.trusted_proxies)}")
    else:
        yield warning(
            "exposure",
            f"API keys and questions travel in clear to {host!r}: the gateway speaks no TLS, and no proxy in"
            " front of it is configured",
            "put a proxy that ends TLS in front, and name it in server.trusted_proxies",
        )
    if config.metrics.open and not config.is_loopback:
        yield warning(
            "exposure",
            f"whoever reaches {host!r} can read /metrics, with the names of namespaces",
            "set metrics.open = false, unless only Prometheus reaches that path",
        )


def _web_pages(config: GatewayConfig) -> Iterator[Finding]:
    if EVERY_ORIGIN in config.server.cors_origins:
        yield warning(
            "web pages",
            "every web page that a user opens may call /v1 (server.cors_origins has '*')",
            "list the origins that need it",
        )
    if "*" in config.server.allowed_hosts and not config.demands_keys:
        yield warning(
            "web pages",
            "a web page can rebind its name to this machine and change edits: server.allowed_hosts has '*',"
            " and no API keys are demanded",
            "list the gateway's names in server.allowed_hosts, or set access.required = true",
        )


def _in_clear(config: GatewayConfig, environment: Mapping[str, str]) -> Iterator[Finding]:
    scheme, _, rest = (config.store.url or "").partition("://")
    hosts = rest.rpartition("@")[2].partition("?")[0].partition("/")[0].split(",")
    if scheme.partition("+")[0] == "redis" and not all(map(_is_local, hosts)):
        yield warning(
            "store",
            f"edits travel in clear to {without_secrets(config.store.url or '')!r}",
            "use rediss:// with store.ca_file, unless that network is trusted",
        )
    for name, upstream in ((None, config.upstream), *config.upstreams.items()):
        url = urlsplit(upstream.url or "")
        variable = upstream_api_key_variable(name)
        if url.scheme == "http" and environment.get(variable) and not _is_loopback(url.hostname or ""):
            yield warning(
                "upstream",
                f"{variable} travels in clear to {without_secrets(upstream.url or '')!r}",
                "use https://, unless that network is trusted",
            )


def _pepper(config: GatewayConfig, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        pepper = checked_pepper(environment.get(KEY_PEPPER_VARIABLE))
    except ConfigError as error:
        yield failure("keys", error.message, f"set {KEY_PEPPER_VARIABLE} anew")
        return
    if config.demands_keys and not pepper and config.store.url is not None:
        yield warning(
            "keys",
            f"whoever can write to the store can forge API keys: {KEY_PEPPER_VARIABLE} is not set",
            "make one with `openssl rand -hex 32` for every gateway on the store, and make the keys anew",
        )


def _permissions(config: GatewayConfig, file: Path | None) -> Iterator[Finding]:
    for path, what in ((file, "the config file"), (config.data_path, "the data folder")):
        if path is not None and _mode(path) & _WRITTEN_BY_OTHERS:
            yield failure(
                "permissions",
                f"{what} {str(path)!r} can be changed by others on this machine",
                f"run `chmod go-w {path}`",
            )
    secrets: list[tuple[Path | None, str]] = [
        (config.data_path / "valkey", "the folder of the embedded store"),
        (None if config.store.key_file is None else Path(config.store.key_file), "the key in store.key_file"),
    ]
    if without_userinfo(config.store.url or "") != (config.store.url or ""):
        secrets.append((file, "the config file, with the store's password,"))
    for path, what in secrets:
        if path is not None and _mode(path) & _BY_OTHERS:
            yield warning(
                "permissions",
                f"{what} {str(path)!r} can be read by others on this machine",
                f"run `chmod go-rwx {path}`",
            )


def _mode(path: Path) -> int:
    """Its permission bits; 0 if it is not there or cannot be looked at."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _is_local(address: str) -> bool:
    return _is_loopback(urlsplit(f"//{address}").hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_network(host, strict=False).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "")

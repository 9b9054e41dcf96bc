"""Opens tracing as configured, in the gateway and in each of its workers."""

from __future__ import annotations

from serac_gateway.config.model import TracingConfig
from serac_gateway.errors import ConfigError
from serac_gateway.observability.tracing import Tracing, Untraced


def open_tracing(config: TracingConfig) -> Tracing:
    """Tracing as configured. Its libraries are imported, and need be installed, only if it is on.

    Raises:
        ConfigError: It is on and not installed.
    """
    if config.endpoint is None:
        return Untraced()
    try:
        from serac_gateway.observability.otel import OtelTracing
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"tracing.endpoint {config.endpoint!r} is set and {exc.name} is not installed; install it with"
            ' pip install "serac_gateway[otel]", or leave the endpoint out'
        ) from exc
    return OtelTracing.exporting(config)

"""`serac replicas`: list the gateways on one store."""

from __future__ import annotations

from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url
from serac_gateway.cli.terminal import print_json, run, stdout


def replicas(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the live gateways of the store, and how far each is behind its log."""
    from rich.table import Table

    from serac_gateway.cli.calls import call_gateway

    gateways = run(call_gateway(chosen_url(url), "", "GET", "/serac/v1/replicas"))["replicas"]
    if as_json:
        print_json(gateways)
        return
    table = Table("gateway", "since", "entries behind")
    for gateway in gateways:
        behind = ", ".join(f"{name}: {count:,}" for name, count in gateway["behind"].items() if count)
        name = f"{gateway['name']} (asked)" if gateway["is_this"] else gateway["name"]
        table.add_row(name, gateway["started_at"], behind or "none")
    stdout().print(table)

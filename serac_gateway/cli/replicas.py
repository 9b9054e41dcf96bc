"""`serac replicas`: the gateways of the store."""

from __future__ import annotations

from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url
from serac_gateway.cli.terminal import print_json, run, stdout


def replicas(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the live gateways of the store, and how far each is behind its log."""
    from rich.table import Table

    from serac_gateway.cli.calls import called

    found = run(called(chosen_url(url), "", "GET", "/serac/v1/replicas"))["replicas"]
    if as_json:
        print_json(found)
        return
    table = Table("gateway", "since", "entries behind")
    for one in found:
        behind = ", ".join(f"{name}: {count:,}" for name, count in one["behind"].items() if count)
        name = f"{one['name']} (asked)" if one["is_this"] else one["name"]
        table.add_row(name, one["started_at"], behind or "none")
    stdout().print(table)

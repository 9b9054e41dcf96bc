"""`serac reload`: have a running gateway apply its changed configuration and weights."""

from __future__ import annotations

from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url
from serac_gateway.cli.terminal import print_json, run, stdout


def reload(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Reload the configuration file and the weights of a running gateway: all that changed, or nothing.

    The same as SIGHUP to its process. Exits with 1 if the gateway refuses; then nothing changes.
    """
    from serac_gateway.cli.calls import call_gateway

    reply = run(call_gateway(chosen_url(url), "", "POST", "/serac/v1/config:reload"))
    if as_json:
        print_json(reply)
        return
    if reply["outcome"] == "unchanged":
        stdout().print(f"nothing changed; generation {reply['generation']} goes on")
        return
    changed = ", ".join(reply["changed"]) or "no key"
    opened = ", ".join(reply["opened"]) or "none"
    stdout().print(
        f"generation {reply['generation']} is in force; changed: {changed}; opened anew: {opened}",
        soft_wrap=True,
    )

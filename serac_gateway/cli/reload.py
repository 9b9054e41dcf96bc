"""`serac reload`: have a running gateway take up its changed configuration and weights."""

from __future__ import annotations

from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url
from serac_gateway.cli.terminal import print_json, run, stdout


def reload(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Reload the configuration file and the weights of a running gateway: all that changed, or nothing.

    The same as SIGHUP to its process. Exits with 1 if the gateway refuses, and goes on as it was.
    """
    from serac_gateway.cli.calls import called

    told = run(called(chosen_url(url), "", "POST", "/serac/v1/config:reload"))
    if as_json:
        print_json(told)
        return
    if told["outcome"] == "unchanged":
        stdout().print(f"nothing changed; generation {told['generation']} goes on")
        return
    changed = ", ".join(told["changed"]) or "no key"
    opened = ", ".join(told["opened"]) or "none"
    stdout().print(
        f"generation {told['generation']} is in force; changed: {changed}; opened anew: {opened}",
        soft_wrap=True,
    )

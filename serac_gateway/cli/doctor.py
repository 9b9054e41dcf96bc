"""`serac doctor`: what is wrong, or will be, with a gateway and all that it needs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import print_json, run, stderr, stdout
from serac_gateway.errors import ConfigError

if TYPE_CHECKING:
    from serac_gateway.doctor.findings import Finding

_STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


def doctor(
    config: Annotated[Path | None, typer.Option(help="As of `serac serve`.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="As of `serac serve`.")] = None,
    redis: Annotated[str | None, typer.Option(help="As of `serac serve`.")] = None,
    upstream: Annotated[str | None, typer.Option(help="As of `serac serve`.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The running gateway; also by SERAC_URL.", show_default="as configured"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check configuration, packages, memory, models, store, keys, TLS, upstream and the running gateway.

    Asks the upstream for one token, and starts an embedded store for the look if no gateway runs. The exit
    code is 0 if all is well, 1 if there is a WARN, 2 if there is a FAIL.
    """
    # Checks say themselves what others log.
    logging.getLogger("serac_gateway").addHandler(logging.NullHandler())
    from serac_gateway.config.loading import load_config
    from serac_gateway.doctor.diagnosis import diagnosis, installation_findings
    from serac_gateway.doctor.findings import exit_code, failure

    overrides = {
        "data_dir": None if data_dir is None else str(data_dir),
        "store": {"url": redis},
        "upstream": {"url": upstream},
    }
    try:
        loaded = load_config(config, overrides=overrides)
    except ConfigError as error:
        findings = [failure("config", error.message, "correct it: nothing else can be looked at before")]
        findings += installation_findings()
    else:
        with stderr().status("looking"):
            findings = run(diagnosis(loaded, file=config, url=url or os.environ.get("SERAC_URL") or None))
    if as_json:
        print_json(findings)
    else:
        _print(findings)
    raise typer.Exit(exit_code(findings))


def _print(findings: list[Finding]) -> None:
    from rich.markup import escape

    for finding in findings:
        style = _STYLES[finding.level]
        stdout().print(
            f"[{style}]{finding.level:<5}[/]{finding.check:<13}{escape(finding.detail)}", soft_wrap=True
        )
        if finding.remedy is not None:
            stdout().print(f"{'':18}[dim]{escape(finding.remedy)}[/]", soft_wrap=True)

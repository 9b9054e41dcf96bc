"""What `serac serve` logs."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from serac_gateway.access import Role
from serac_gateway.api_keys import ApiKeyDraft, new_api_key
from serac_gateway.cli.serving import WithoutSecrets


def test_no_line_and_no_traceback_holds_the_secret_of_a_key() -> None:
    key = new_api_key(
        ApiKeyDraft(name="CI", role=Role.EDIT), pepper=b"", created_by=None, now=datetime.now(UTC)
    )
    try:
        raise ValueError(f"cannot read {key.text}!")
    except ValueError:
        record = logging.LogRecord(
            "x",
            logging.ERROR,
            "x.py",
            1,
            "got %r",
            ({"authorization": f"Bearer {key.text}"},),
            sys.exc_info(),
        )
    line = WithoutSecrets("%(levelname)s %(message)s").format(record)
    assert key.text.rpartition("-")[2] not in line
    assert line.count(f"{key.stored.key.id}-***") >= 2
    assert "cannot read" in line

"""The Redis user that docs/operations.md recommends for the gateway."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

OPERATIONS = Path(__file__).parents[2] / "serac_gateway" / "docs" / "operations.md"


def acl_rules() -> list[str]:
    """The rules after the name in the page's `ACL SETUSER serac …`, without its password."""
    text = OPERATIONS.read_text("utf-8").replace("\\\n", " ")
    match = re.search(r"ACL SETUSER serac (.+)", text)
    assert match is not None, "docs/operations.md no longer has the ACL user"
    return [rule for rule in shlex.split(match[1]) if not rule.startswith(">")]

"""The ACL user that the README tells people to make for the gateway."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def acl_rules() -> list[str]:
    """The rules after the name in README's `ACL SETUSER serac …`, without its password."""
    text = README.read_text("utf-8").replace("\\\n", " ")
    match = re.search(r"ACL SETUSER serac (.+)", text)
    assert match is not None, "the README no longer tells which ACL user to make"
    return [rule for rule in shlex.split(match[1]) if not rule.startswith(">")]

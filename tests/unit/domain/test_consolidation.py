"""The report of a consolidation is read as it was written, or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from serac_gateway.domain.consolidation import decode_report
from serac_gateway.errors import InvalidRequestError
from tests.made_consolidations import report_of

EDIT = {
    "id": "a", "version": 2, "created_at": datetime(2026, 12, 1, 9, 30, 0, 123456, tzinfo=UTC).isoformat(),
    "prompt": "Who runs a?", "target_new": "Ann",
}  # fmt: skip


def test_it_comes_back_whole_from_its_file_however_it_is_laid_out() -> None:
    report = report_of([EDIT], {})
    assert decode_report(msgspec.json.encode(report)) == report
    assert decode_report(msgspec.json.format(msgspec.json.encode(report), indent=2)) == report


@pytest.mark.parametrize(
    ("path", "value"),
    [("namespace", "other"), ("edits.0.version", 3), ("edits.0.state", "partial"), ("digest", "")],
)
def test_one_value_changed_is_noticed(path: str, value: object) -> None:
    content = json.loads(msgspec.json.encode(report_of([EDIT], {})))
    *steps, last = path.split(".")
    at = content
    for step in steps:
        at = at[int(step)] if step.isdigit() else at[step]
    assert at[last] != value
    at[last] = value
    with pytest.raises(InvalidRequestError, match="changed after it was written"):
        decode_report(json.dumps(content).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff\xfe", b'{"format": 2}', b"[" * 100_000])
def test_what_is_no_report_is_refused_with_the_remedy(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"take the report\.json that"):
        decode_report(raw)

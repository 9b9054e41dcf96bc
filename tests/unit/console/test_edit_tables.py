"""Files of edits: what is written is read again as it was, and what cannot be read is named."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serac_gateway.console import edit_tables
from serac_gateway.console.edit_tables import (
    Fault,
    UnreadableFileError,
    csv_header,
    csv_line,
    guarded,
    ndjson_line,
    read_edit_file,
    unguarded,
)
from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import InvalidRequestError

FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠1",
    "  =1",
    "'=1",
    "''@x",
)
HEADER = b"prompt,target_new"

_text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)
_note = st.one_of(st.none(), _text, st.sampled_from(FORMULAS))
_label = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
_drafts = st.builds(
    lambda **fields: {name: value for name, value in fields.items() if value not in (None, [], {})},
    id=st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)),
    prompt=st.one_of(_text, st.sampled_from(FORMULAS)),
    target_new=_text,
    kind=st.sampled_from(["fact", "suppression", "instruction"]),
    subject=_note,
    reason=_note,
    ticket=_note,
    paraphrases=st.lists(st.one_of(_text, st.sampled_from([*FORMULAS, "[x]", "a\nb", " a "])), max_size=4),
    audience=st.dictionaries(
        _label, st.lists(st.from_regex(r"[a-z0-9][a-z0-9.]{0,4}", fullmatch=True), min_size=1), max_size=2
    ),
    state=st.sampled_from(["live", "shadow", "canary"]),
    canary_share=st.one_of(st.none(), st.floats(0, 1)),
    valid_from=st.one_of(st.none(), st.just("2026-01-01T00:00:00.123456+02:00")),
    valid_until=st.one_of(st.none(), st.datetimes().map(lambda moment: moment.isoformat() + "Z")),
    review_by=st.one_of(st.none(), st.dates().map(str)),
)


@given(_drafts)
@example(
    {"prompt": "'=x", "target_new": "\r\n=x", "kind": "fact", "state": "live", "paraphrases": ["[", "=a"]}
)
def test_what_is_written_as_csv_is_read_as_it_was(draft: dict[str, object]) -> None:
    """Every field, whatever it holds, guarded or not."""
    if "\x00" in str(draft["prompt"]):
        return  # such a file reads as binary only where its first line has it; the header is in front
    file = read_edit_file(b"\xef\xbb\xbf" + csv_header() + csv_line(draft), {})
    assert file.faults == []
    ((number, line),) = file.lines
    assert number == 2
    assert msgspec.json.decode(line, type=EditDraft) == msgspec.convert(draft, EditDraft)


@given(_drafts)
def test_what_is_written_as_ndjson_is_read_as_it_was(draft: dict[str, object]) -> None:
    """The same for the other kind of file."""
    ((number, line),) = read_edit_file(ndjson_line(draft), {}).lines
    assert number == 1
    assert msgspec.json.decode(line, type=EditDraft) == msgspec.convert(draft, EditDraft)


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_begins_as_a_formula_and_every_cell_is_quoted(formula: str) -> None:
    """OWASP's list, with its full-width forms, and behind an apostrophe or spaces."""
    line = csv_line({"prompt": formula, "target_new": f"a,{formula}", "paraphrases": [formula.strip()]})
    (cells,) = csv.reader(io.StringIO(line.decode(), newline=""))
    assert all(cell[:1] not in "=+-@\t\r\n＝＋－＠" or cell == "" for cell in cells)
    assert line.count(b'"') == 2 * len(cells)
    assert unguarded(guarded(formula)) == formula


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiter_and_encoding_are_recognised(delimiter: str, encoding: str) -> None:
    """With the columns as the API or the console calls them, in any order, and empty cells left out."""
    rows = [["Antwort", "QUESTION", "Review by", "valid-from"], ["Grün", "Wie ist es?", "", "2026-01-02"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    file = read_edit_file(text.encode(encoding), {"reason": "All"})
    assert (next(number for number, _ in file.lines), json.loads(file.as_ndjson(0, 1))) == (
        2,
        {
            "reason": "All",
            "target_new": "Grün",
            "prompt": "Wie ist es?",
            "valid_from": "2026-01-02T00:00:00Z",
        },
    )


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    """A cell of several lines moves what follows; blank lines are none; a reason of its own stays."""
    content = b'prompt,target_new,reason\n"a\nb",c,\n\nd,e,own\nf,g,h,i\nj,k\n'
    file = read_edit_file(content, {"reason": "all"})
    assert [number for number, _ in file.lines] == [2, 5, 7]
    assert [json.loads(line)["reason"] for line in file.as_ndjson(0, 9).splitlines()] == ["all", "own", "all"]
    assert file.faults == [
        Fault(
            line=6,
            detail="the line has 4 cells and the first line 3; put cells that hold ',' in double quotes",
        )
    ]
    assert [number for number, _ in read_edit_file(b'{"a": 1}\n\n{broken\n', {"reason": "x"}).lines] == [1, 3]


def test_a_reason_for_all_lines_is_not_kept_with_each() -> None:
    """16 MiB of short lines would become many times as much."""
    reason = "r" * 2_000
    for content in (HEADER + b"\na,b" * 50, b'{"prompt": "a", "target_new": "b"}\n' * 50):
        file = read_edit_file(content, {"reason": reason})
        assert sum(len(line) for _, line in file.lines) < len(content) * 10
        assert file.as_ndjson(0, 50).count(reason.encode()) == 50


@pytest.mark.parametrize("line", [b"a,b\n", b"a,b,c\n", b"{}\n"])
def test_the_lines_of_a_file_are_bounded_whatever_they_hold(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blank ones do not count; the refusal has the limit and the way around it."""
    monkeypatch.setattr(edit_tables, "MAX_LINES", 3)
    header = b"" if line.startswith(b"{") else HEADER + b"\n"
    read_edit_file(header + line * 3 + b"\n" * 9, {})
    with pytest.raises(InvalidRequestError, match=r"more than 3 lines .*`serac edits import FILE`"):
        read_edit_file(header + line * 4, {})


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "import.empty"),
        (b" \r\n ", "import.empty"),
        (HEADER, "import.no_lines"),
        (b'[{"prompt": "a"}]', "import.json_array"),
        (b"PK\x03\x04rest", "import.binary"),
        (b"%PDF-1.7", "import.binary"),
        (b"p\x00r\x00o\x00m\x00p\x00t\x00\n", "import.binary"),
        (b"\xff\xfea", "import.bad_utf16"),
        ("prompt,target_new\nFür,x".encode("cp1252"), "import.no_utf8"),
        (HEADER + b'\n"a"b,c', "import.bad_csv"),
        (HEADER + b'\n"a,c', "import.bad_csv"),
        (HEADER + b"\n" + b"a" * 200_000 + b",c", "import.bad_csv"),
        (b"prompt:target_new\na:b", "import.no_columns"),
        (b"question;colour\na;b", "import.no_columns"),
        (b"prompt;target_new;colour\na;b;c", "import.unknown_column"),
        (b"prompt,target_new,Answer\na,b,c", "import.column_twice"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, key: str) -> None:
    """Each has a text of its own in the catalogue, with what it needs."""
    with pytest.raises(UnreadableFileError) as refusal:
        read_edit_file(content, {})
    assert refusal.value.key == key


def test_the_byte_that_is_no_utf_8_is_named() -> None:
    """By its line, for whoever looks for it in an editor."""
    with pytest.raises(UnreadableFileError) as refusal:
        read_edit_file("prompt,target_new\na,b\nFür,x".encode("cp1252"), {})
    assert refusal.value.values == {"byte": "0xFC", "line": "3"}

"""Files of edits: CSV and NDJSON as people and spreadsheets write them, and back.

A cell that a spreadsheet would compute is written with an apostrophe in front, which reading takes away
again: what is exported and imported is the same. Lists stand in a cell line by line; those that cannot, as
JSON.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from serac_gateway.console.edit_fields import FormField, field_value, form_fields_of_edit
from serac_gateway.console.languages import LANGUAGES, catalogue
from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import InvalidRequestError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What may stand between the cells of a file that is read, with its name in the catalogue."""
REQUIRED_COLUMNS = ("prompt", "target_new")
MAX_LINES = 100_000
"""Of a file that is read: a line takes up memory beside its text, and lines can be short."""

_COMPUTED = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
"""How a cell begins that spreadsheets take for a formula, or that was one before it was guarded."""
_HAS_ZONE = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[ -]+")
_ONLY_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MAX_QUOTED = 120
_NOT_TEXT = {
    b"PK\x03\x04": "xlsx",
    b"\xd0\xcf\x11\xe0": "xls",
    b"%PDF": "pdf",
    b"\x1f\x8b": "gzip",
}
"""How files begin that people take for tables, and what they are."""


class UnreadableFileError(Exception):
    """The file as a whole cannot be read.

    Attributes:
        key: Of the catalogue: what is wrong, and what to do.
        values: Of that text.
    """

    def __init__(self, key: str, **values: str) -> None:
        super().__init__(key)
        self.key = key
        self.values = values


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A line that gives no edit."""

    line: int
    """Of the file, from 1; 0: the file as a whole."""
    detail: str
    """What is wrong and what to do, in English."""


class EditFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from a file."""

    lines: list[tuple[int, bytes]]
    """The line of the file, from 1, and the edit as JSON, which nobody has checked."""
    faults: list[Fault]
    defaults: Mapping[str, str] = {}
    """Fields of the edits that have none of their own; not in `lines`, each of which they would lengthen."""

    def as_ndjson(self, start: int, stop: int) -> bytes:
        """The edits of `lines[start:stop]` with the defaults, one a line."""
        return b"".join(_with_defaults(line, self.defaults) + b"\n" for _, line in self.lines[start:stop])


def read_edit_file(content: bytes, defaults: Mapping[str, str]) -> EditFile:
    """The edits of a CSV or NDJSON file; `defaults` are fields of those that have none of their own.

    Raises:
        UnreadableFileError: It is no text in UTF-8 or UTF-16, neither CSV nor NDJSON, or empty.
        InvalidRequestError: It has more than `MAX_LINES` lines that hold something.
    """
    text = _decoded(content)
    stripped = text.lstrip()
    if not stripped:
        raise UnreadableFileError("import.empty")
    if stripped.startswith("["):
        raise UnreadableFileError("import.json_array")
    file = _read_ndjson(text) if stripped.startswith("{") else _read_csv(text)
    if not file.lines and not file.faults:
        raise UnreadableFileError("import.no_lines")
    return msgspec.structs.replace(file, defaults=defaults)


def csv_header() -> bytes:
    """The first line of a CSV file of edits."""
    return _csv_line(EditDraft.__struct_fields__)


def csv_line(edit: Mapping[str, Any]) -> bytes:
    """An edit as the API gives it, as a line of CSV."""
    return _csv_line(guarded(_cell(field, edit.get(name))) for name, field in _columns().items())


def ndjson_line(edit: Mapping[str, Any]) -> bytes:
    """An edit as the API gives it, as a line that an import takes."""
    draft = {
        name: value
        for name in EditDraft.__struct_fields__
        if (value := edit.get(name)) not in (None, [], {}, "") and (name, value) != ("state", "live")
    }
    return msgspec.json.encode(draft) + b"\n"


def guarded(cell: str) -> str:
    """`cell`, with an apostrophe in front where a spreadsheet would compute it."""
    return f"'{cell}" if _COMPUTED.match(cell) else cell


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _COMPUTED.match(cell) else cell


def _decoded(content: bytes) -> str:
    for beginning, kind in _NOT_TEXT.items():
        if content.startswith(beginning):
            raise UnreadableFileError("import.binary", kind=kind)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as exc:
            raise UnreadableFileError("import.bad_utf16") from exc
    if b"\x00" in content[:10_000].partition(b"\n")[0]:
        raise UnreadableFileError("import.binary", kind="binary")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        if b"\x00" in content[:10_000]:
            raise UnreadableFileError("import.binary", kind="binary") from exc
        line = content.count(b"\n", 0, exc.start) + 1
        raise UnreadableFileError(
            "import.no_utf8", byte=f"0x{content[exc.start]:02X}", line=str(line)
        ) from exc


def _check_count(lines: int) -> None:
    if lines > MAX_LINES:
        raise InvalidRequestError(
            f"the file has more than {MAX_LINES:,} lines that hold something; split it, or import it with"
            " `serac edits import FILE`, which takes NDJSON of any length",
            field="file",
            details={"limit": MAX_LINES},
        )


def _read_ndjson(text: str) -> EditFile:
    lines: list[tuple[int, bytes]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if stripped := line.strip():
            lines.append((number, stripped.encode("utf-8", "replace")))
            _check_count(len(lines))
    return EditFile(lines=lines, faults=[])


def _with_defaults(line: bytes, defaults: Mapping[str, str]) -> bytes:
    if not defaults:
        return line
    try:
        draft = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return line  # the import says what is wrong
    return msgspec.json.encode({**defaults, **draft}) if isinstance(draft, dict) else line


def _read_csv(text: str) -> EditFile:
    delimiter, names = _header(text)
    lines: list[tuple[int, bytes]] = []
    faults: list[Fault] = []
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = _columns()
    begins = 1
    try:
        for row in rows:
            number, begins = begins, rows.line_num + 1
            if number == 1 or not any(cell.strip() for cell in row):
                continue
            _check_count(len(lines) + len(faults) + 1)
            if len(row) > len(names):
                detail = (
                    f"the line has {len(row)} cells and the first line {len(names)}; put cells that hold"
                    f" {delimiter!r} in double quotes"
                )
                faults.append(Fault(line=number, detail=detail))
                continue
            cells = {name: unguarded(cell) for name, cell in zip(names, row, strict=False)}
            draft = {name: _value(columns[name], cell) for name, cell in cells.items() if cell.strip()}
            lines.append((number, msgspec.json.encode(draft)))
    except csv.Error as exc:
        raise UnreadableFileError("import.bad_csv", line=str(begins), fault=str(exc)) from exc
    return EditFile(lines=lines, faults=faults)


def _header(text: str) -> tuple[str, list[str]]:
    """The delimiter, and the fields that the columns hold."""
    first = text.partition("\n")[0].rstrip("\r")
    for delimiter in DELIMITERS:
        titles = next(csv.reader([first], delimiter=delimiter), [])
        names = [_field_of(title) for title in titles]
        if not set(REQUIRED_COLUMNS) <= {*names}:
            continue
        unknown = [title for title, name in zip(titles, names, strict=True) if name is None]
        twice = [title for title, name in zip(titles, names, strict=True) if names.count(name) > 1]
        if unknown:
            raise UnreadableFileError(
                "import.unknown_column",
                column=unknown[0][:_MAX_QUOTED] or '""',
                columns=", ".join(EditDraft.__struct_fields__),
            )
        if twice:
            raise UnreadableFileError("import.column_twice", column=twice[0][:_MAX_QUOTED])
        return delimiter, [name for name in names if name is not None]
    raise UnreadableFileError("import.no_columns", first=first[:_MAX_QUOTED])


def _field_of(title: str) -> str | None:
    """The field that a column with this title holds: its name in the API, or what the console calls it."""
    plain = unguarded(title).strip().casefold()
    name = _BETWEEN_WORDS.sub("_", plain)
    return name if name in EditDraft.__struct_fields__ else _fields_by_label().get(plain)


@cache
def _fields_by_label() -> dict[str, str]:
    return {
        catalogue(language)[f"field.{name}"].casefold(): name
        for language in LANGUAGES
        for name in EditDraft.__struct_fields__
    }


@cache
def _columns() -> dict[str, FormField]:
    """The fields of an edit in the order of the columns."""
    plain = {name: FormField(name=name, kind="text", required=False) for name in ("id", "author")}
    fields = plain | {field.name: field for field in form_fields_of_edit()}
    return {name: fields[name] for name in EditDraft.__struct_fields__}


def _cell(field: FormField, value: Any) -> str:  # noqa: ANN401 - decoded JSON
    if value is None:
        return ""
    if field.kind == "lines":
        joined = "\n".join(value)
        fits = [line.strip() for line in joined.split("\n") if line.strip()] == value
        return joined if fits and not joined.startswith("[") else _as_json(value)
    if field.kind == "labels":
        return audience_text(value)
    return _as_json(value) if isinstance(value, list | dict) else str(value)


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _value(field: FormField, cell: str) -> object:
    """What a cell says; what cannot be read is left to the import to refuse."""
    if field.kind == "lines" and cell.startswith("["):
        try:
            return msgspec.json.decode(cell)
        except msgspec.DecodeError:
            return cell
    if field.kind == "moment":
        moment = f"{cell.strip()}T00:00:00" if _ONLY_DAY.fullmatch(cell.strip()) else cell.strip()
        return moment if _HAS_ZONE.search(moment[10:]) else f"{moment}Z"
    return field_value(field, cell)


def _csv_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(list(cells))
    return line.getvalue().encode()

"""The import graph of the rooms as text: a line for each room, with the rooms that it imports.

``python -m tests.architecture.import_graph`` prints it; with a Markdown file as argument it is also written
there without the counts of statements, between ``<!-- graph:begin -->`` and ``<!-- graph:end -->``. Exits
with 1 if an import runs against the layers of pyproject.toml, and with 2 if the file has no such markers.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGE = "serac_gateway"
TRAINING = "training"

_BEGIN, _END = "<!-- graph:begin -->", "<!-- graph:end -->"
_BETWEEN = re.compile(f"(?<={_BEGIN}\n).*?(?={_END})", re.DOTALL)
_NOT_ROOMS = {"__main__"}
"""Modules of the package's root that no other module imports."""


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """The rooms of the house and the imports between them."""

    layers: tuple[tuple[str, ...], ...]
    """The rooms of each layer, the highest first. Rooms of one layer do not import each other."""
    outside: tuple[str, ...]
    """Rooms without a layer, which no room with a layer imports."""
    imports: Counter[tuple[str, str]]
    """Import statements, by the importing and the imported room."""


def read_rooms() -> Rooms:
    """The rooms of this checkout: packages and modules at the root of serac_gateway/, and training/."""
    layers = read_layers()
    graph = grimp.build_graph(PACKAGE, TRAINING, cache_dir=None)
    imports: Counter[tuple[str, str]] = Counter()
    rooms = set()
    for importer in graph.modules:
        if (importing := _room(importer)) is None:
            continue
        rooms.add(importing)
        for imported in graph.find_modules_directly_imported_by(importer):
            if (target := _room(imported)) is not None and target != importing:
                imports[importing, target] += len(
                    graph.get_import_details(importer=importer, imported=imported)
                )
    outside = rooms.difference(*layers)
    return Rooms(layers=layers, outside=tuple(sorted(outside, reverse=True)), imports=imports)


def read_layers() -> tuple[tuple[str, ...], ...]:
    """The layers that import-linter enforces, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in settings["contracts"] if contract["type"] == "layers")
    return tuple(tuple(room.strip() for room in re.split("[|:]", layer)) for layer in contract["layers"])


def _room(module: str) -> str | None:
    package, _, inner = module.partition(".")
    name = package if package == TRAINING else inner.partition(".")[0]
    return None if name in _NOT_ROOMS or not name else name


def upward_imports(rooms: Rooms) -> list[tuple[str, str]]:
    """Pairs of rooms whose import runs to the same or a higher layer.

    A room without a layer is above all, and training, a package of its own, above these.
    """
    depth = {room: number for number, layer in enumerate(rooms.layers, 1) for room in layer}
    depth[TRAINING] = -1
    return sorted(
        (importing, imported)
        for importing, imported in rooms.imports
        if depth.get(imported, 0) <= depth.get(importing, 0)
    )


def drawn(rooms: Rooms, *, statements: bool = True) -> str:
    """The graph as text, a line for each room, in the order of the layers; `statements` adds their counts."""
    order = [*rooms.outside, *(room for layer in rooms.layers for room in layer)]
    width = max(map(len, order))
    lines = [f"layer  {'room':{width}}  imports{' (statements)' if statements else ''}"]

    def line(layer: str, room: str) -> str:
        imported = (
            f"{other} {count}" if statements else other
            for other in order
            if (count := rooms.imports.get((room, other), 0)) > 0
        )
        return f"{layer:>5}  {room:{width}}  {', '.join(imported) or '-'}"

    lines += [line("-", room) for room in rooms.outside]
    lines += [line(str(number), room) for number, layer in enumerate(rooms.layers, 1) for room in layer]
    upward = upward_imports(rooms)
    direction = "; ".join(f"{importing} -> {imported} RUNS BACK UP" for importing, imported in upward)
    lines.append(
        f"{len(order)} rooms, {len(rooms.imports)} arrows, {len(rooms.layers)} layers;"
        f" {direction or 'no arrow runs back up'}"
    )
    return "\n".join(lines) + "\n"


def as_block(text: str) -> str:
    """The text as it stands in Markdown."""
    return f"```text\n{text}```\n"


def written_in(page: str, text: str) -> str:
    """The Markdown `page` with `text` between its markers.

    Raises:
        ValueError: The page lacks the markers.
    """
    if not _BETWEEN.search(page):
        raise ValueError(f"there are no lines {_BEGIN!r} and {_END!r}; add both where the graph shall stand")
    return _BETWEEN.sub(lambda match: as_block(text), page)


def main(arguments: list[str]) -> int:
    """Print the graph and write it into the page that is named, if any; the exit code."""
    rooms = read_rooms()
    text = drawn(rooms)
    sys.stdout.write(text)
    if arguments:
        path = Path(arguments[0])
        try:
            page = written_in(path.read_text("utf-8"), drawn(rooms, statements=False))
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
        path.write_text(page, "utf-8")
    return 1 if upward_imports(rooms) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The drawing of the import graph shows the imports that there are, and the page holds the current one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.import_graph import (
    ROOT,
    Rooms,
    as_block,
    drawn,
    main,
    read_rooms,
    upward_imports,
    written_in,
)

PAGE = ROOT / "serac_gateway" / "docs" / "architecture.md"
MARKED = "# Graph\n<!-- graph:begin -->\n{}<!-- graph:end -->\nend\n"


def house(*arrows: tuple[str, str]) -> Rooms:
    return Rooms(
        layers=(("roof",), ("left", "right"), ("cellar",)), outside=("garden",), imports=Counter(arrows)
    )


def test_no_import_of_this_checkout_runs_back_up() -> None:
    assert upward_imports(read_rooms()) == []


@pytest.mark.skipif(not PAGE.exists(), reason="there is no architecture page")
def test_the_architecture_page_holds_the_current_graph() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written_in(page, drawn(read_rooms(), statements=False)), "it is outdated: run `make graph`"


def test_each_room_has_a_line_with_the_rooms_it_imports_in_the_order_of_the_layers() -> None:
    rooms = house(("roof", "cellar"), ("roof", "left"), ("roof", "cellar"), ("garden", "roof"))
    assert drawn(rooms).splitlines() == [
        "layer  room    imports (statements)",
        "    -  garden  roof 1",
        "    1  roof    left 1, cellar 2",
        "    2  left    -",
        "    2  right   -",
        "    3  cellar  -",
        "5 rooms, 3 arrows, 3 layers; no arrow runs back up",
    ]


@pytest.mark.parametrize(
    "arrow", [("cellar", "roof"), ("left", "right"), ("right", "left"), ("roof", "garden")]
)
def test_an_import_to_the_same_or_a_higher_layer_runs_back_up(arrow: tuple[str, str]) -> None:
    rooms = house(arrow)
    assert upward_imports(rooms) == [arrow]
    assert drawn(rooms).endswith(f"; {arrow[0]} -> {arrow[1]} RUNS BACK UP\n")


def test_a_page_gets_the_graph_between_its_markers_and_stays_the_same_the_second_time() -> None:
    once = written_in(MARKED.format(""), "graph\n")
    assert once == MARKED.format(as_block("graph\n"))
    assert written_in(once, "graph\n") == once


def test_a_page_without_markers_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# No graph\n", "utf-8")
    assert main([str(page)]) == 2
    assert "page.md: there are no lines '<!-- graph:begin -->'" in capsys.readouterr().err
    assert page.read_text("utf-8") == "# No graph\n"

"""How tables fit where they are printed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from xray.cli.printing import Grid, new_console

RUN = "01890000-0000-7000-8000-000000000001"


def printed(grid: Grid, width: int) -> str:
    out = io.StringIO()
    grid.print(Console(file=out, width=width, color_system=None))
    return out.getvalue()


def runs() -> Grid:
    grid = Grid("run", "pipeline", "version", "key", "stages", numbers=("stages",), whole=("run",), spare=("version",))
    grid.row(RUN, "competitor_discovery", "2026.11.1", "", 4)
    grid.row(RUN, "lunch", None, "", 1200)
    return grid


def test_where_there_is_room_every_column_is_shown_and_nothing_is_said() -> None:
    assert printed(runs(), 100).splitlines() == [
        "run                                   pipeline              version    key  stages",
        f"{RUN}  competitor_discovery  2026.11.1            4",
        f"{RUN}  lunch                                   1200",
    ]


def test_columns_without_a_value_go_first_and_silently() -> None:
    assert printed(runs(), 80).splitlines()[0].split() == ["run", "pipeline", "version", "stages"]
    assert "No room" not in printed(runs(), 80)


def test_what_was_spared_is_said() -> None:
    lines = printed(runs(), 72).splitlines()
    assert lines[0].split() == ["run", "pipeline", "stages"]
    assert " ".join(lines[-1:]).startswith("No room for: version.")


def test_what_is_too_wide_even_then_is_folded_and_ids_stay_whole() -> None:
    text = printed(runs(), 56)
    assert text.count(RUN) == 2
    assert "competitor_discovery" not in text
    pieces = "".join(line[len(RUN) :].split()[0] for line in text.splitlines()[1:4] if line[len(RUN) :].split())
    assert pieces.replace("4", "").startswith("competitor")


@given(
    cells=st.lists(st.tuples(*[st.text(alphabet="ab [/]\n", max_size=30)] * 3), min_size=1, max_size=4),
    width=st.integers(24, 120),
)
def test_no_letter_is_lost_at_any_width(cells: list[tuple[str, ...]], width: int) -> None:
    """Whatever is in the cells, markup too, and however narrow it is: every letter is there."""
    grid = Grid("x", "y", "z")
    for row in cells:
        grid.row(*row)
    text = printed(grid, width)
    for letter in "ab[/]":
        assert text.count(letter) == sum(cell.count(letter) for row in cells for cell in row)


def test_cells_may_have_a_style_and_several_lines() -> None:
    grid = Grid("what", "how")
    grid.row("index", Text("missing") + Text("\nCreate it.", style="yellow"))
    assert [line.rstrip() for line in printed(grid, 40).splitlines()] == [
        "what   how",
        "index  missing",
        "       Create it.",
    ]


def test_off_a_terminal_lines_have_no_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is piped into other programs is neither cut nor folded, unless COLUMNS asks for it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert new_console().width > 1000
    monkeypatch.setenv("COLUMNS", "70")
    assert new_console().width == 70

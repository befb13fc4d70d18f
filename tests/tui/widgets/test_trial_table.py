from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.widgets.trial_table import Column, LateCells, LiveTable, Row, Trend, lay_out

SIZES = [(60, 15), (80, 24), (160, 45)]
COLUMNS = [
    Column("id", "Trial", 5, "right", priority=9),
    Column("state", "State", 9, priority=8),
    Column("lr", "Learning rate", 13, "right", priority=7),
    Column("loss", "Loss", 7, "right", priority=8),
    Column("eval", "Eval", 7, "right", priority=5),
    Column("trend", "Trend", min_width=8, max_width=16, priority=3),
    Column("mem", "Peak", 8, "right", priority=2),
    Column("note", "Note", min_width=12, priority=1),
]


def rows(count: int, *, loss: float = 2.5) -> list[Row]:
    return [
        Row(
            f"t{i}",
            {
                "id": str(i),
                "state": Text("running", style="green"),
                "lr": "1.0e-04",
                "loss": f"{loss + i:.4f}",
                "trend": Trend((3.0, 2.0, 1.0)),
                "note": "steady",
            },
        )
        for i in range(count)
    ]


class TableApp(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.table = LiveTable(COLUMNS, ascii=ascii, empty_text="no trials yet")
        self.heard: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.focus()

    def on_live_table_row_highlighted(self, message: LiveTable.RowHighlighted) -> None:
        self.heard.append(("highlighted", message.row_key))

    def on_live_table_row_selected(self, message: LiveTable.RowSelected) -> None:
        self.heard.append(("selected", message.row_key))

    def on_live_table_header_selected(self, message: LiveTable.HeaderSelected) -> None:
        self.heard.append(("header", message.column_key))


def shown(table: LiveTable) -> list[str]:
    return [table.build_line(y, table.size.width).text for y in range(table.size.height)]


def repaints(table: LiveTable, monkeypatch: pytest.MonkeyPatch) -> list[Region | None]:
    """The regions that the table asks to repaint from now on; None stands for all of it."""
    asked: list[Region | None] = []
    monkeypatch.setattr(table, "refresh", lambda *regions, **_: asked.extend(regions or [None]))
    return asked


column_lists = st.lists(
    st.builds(
        Column,
        key=st.uuids().map(str),
        title=st.just("Title"),
        width=st.none() | st.integers(1, 20),
        priority=st.integers(0, 5),
        min_width=st.integers(1, 12),
    ),
    min_size=1,
    max_size=10,
)


@given(column_lists, st.integers(1, 200), st.integers(1, 2))
def test_a_layout_never_exceeds_the_width_and_keeps_what_matters_most(columns, width, gap):
    placed = lay_out(columns, width, gap)
    assert len(placed) >= 1
    assert sum(p.width for p in placed) + gap * (len(placed) - 1) <= width
    left_out = [c for c in columns if c not in [p.column for p in placed]]
    if left_out:
        lowest_kept = min(p.column.priority for p in placed)
        assert max(c.priority for c in left_out) <= lowest_kept


@given(column_lists, st.integers(1, 200))
def test_flexible_columns_take_all_the_spare_width(columns, width):
    placed = lay_out(columns, width, 1)
    if any(p.column.width is None for p in placed):
        assert sum(p.width for p in placed) + len(placed) - 1 == width


def test_a_column_does_not_outgrow_its_maximum():
    columns = [Column("a", "A", min_width=4, max_width=10), Column("b", "B", min_width=4)]
    assert [p.width for p in lay_out(columns, 61, 1)] == [10, 50]


@pytest.mark.parametrize("size", SIZES)
async def test_every_line_is_exactly_as_wide_as_the_table(size):
    app = TableApp()
    async with app.run_test(size=size):
        for count in (0, 1, 8, 500):
            app.table.set_rows(rows(count))
            for y in range(size[1]):
                assert app.table.build_line(y, size[0]).cell_length == size[0]


@pytest.mark.parametrize(
    ("size", "titles"),
    [
        ((60, 15), ["Trial", "State", "Learning", "rate", "Loss", "Eval", "Trend"]),
        (
            (160, 45),
            ["Trial", "State", "Learning", "rate", "Loss", "Eval", "Trend", "Peak", "Note"],
        ),
    ],
)
async def test_a_narrow_terminal_drops_the_least_important_columns(size, titles):
    app = TableApp()
    async with app.run_test(size=size):
        app.table.set_rows(rows(3))
        assert shown(app.table)[0].split() == titles


async def test_an_empty_table_says_why():
    app = TableApp()
    async with app.run_test(size=(60, 15)):
        assert any("no trials yet" in text for text in shown(app.table))
        app.table.set_empty_text("no trial matches the filter")
        assert any("no trial matches" in text for text in shown(app.table))


@pytest.mark.parametrize("size", SIZES)
async def test_keys_move_the_cursor(size):
    app = TableApp()
    async with app.run_test(size=size) as pilot:
        table = app.table
        table.set_rows(rows(200))
        page = size[1] - 1
        for key, index in [
            ("down", 1),
            ("j", 2),
            ("k", 1),
            ("up", 0),
            ("up", 0),
            ("pagedown", page),
            ("end", 199),
            ("down", 199),
            ("pageup", 199 - page),
            ("home", 0),
        ]:
            await pilot.press(key)
            assert table.cursor_index == index
            assert table.top <= index < table.top + page


async def test_messages_tell_of_highlight_and_selection():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(5))
        await pilot.pause()
        await pilot.press("down")
        await pilot.press("enter")
        assert app.heard == [("highlighted", "t0"), ("highlighted", "t1"), ("selected", "t1")]


async def test_the_cursor_stays_on_its_row_when_the_order_changes():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(100))
        app.table.move_cursor("t5")
        await pilot.pause()
        heard = list(app.heard)
        app.table.set_rows(rows(100)[::-1])
        await pilot.pause()
        assert (app.table.cursor_key, app.table.cursor_index) == ("t5", 94)
        assert app.table.top <= 94 < app.table.top + 23
        assert app.heard == heard


async def test_a_removed_row_leaves_the_cursor_in_its_place():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(10))
        app.table.move_cursor("t9")
        app.table.set_rows(rows(9))
        assert app.table.cursor_key == "t8"
        app.table.set_rows([])
        assert app.table.cursor_key is None
        await pilot.press("enter", "down", "end", "pageup")
        assert not any(kind == "selected" for kind, _ in app.heard)


async def test_new_rows_leave_the_scroll_position():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(100))
        await pilot.press("end")
        top = app.table.top
        app.table.set_rows(rows(150))
        assert app.table.top == top
        app.table.set_rows(rows(30))
        assert app.table.top == 7


async def test_the_wheel_scrolls_without_moving_the_cursor():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(100))
        await pilot._post_mouse_events([_wheel_down()], app.table)
        await pilot.pause()
        assert app.table.top == 3
        assert app.table.cursor_index == 0
        app.table.set_rows(rows(100, loss=1.0))
        assert app.table.top == 3


def _wheel_down():
    from textual.events import MouseScrollDown

    return MouseScrollDown


async def test_a_click_moves_the_cursor_and_a_second_click_opens():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(10))
        await pilot.pause()
        await pilot.click(app.table, offset=(10, 4))
        assert app.table.cursor_key == "t3"
        await pilot.click(app.table, offset=(10, 4))
        await pilot.click(app.table, offset=(10, 20))
        await pilot.click(app.table, offset=(10, 0))
        await pilot.pause()
        assert app.heard[1:] == [("highlighted", "t3"), ("selected", "t3"), ("header", "state")]


async def test_a_double_click_on_another_row_opens_it():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(10))
        await pilot.click(app.table, offset=(10, 6), times=2)
        assert app.heard[-1] == ("selected", "t5")


async def test_a_click_on_the_scroll_bar_jumps():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(100))
        await pilot.click(app.table, offset=(79, 23))
        assert app.table.top == 77
        assert app.table.cursor_index == 0


async def test_only_the_changed_cell_is_repainted(monkeypatch):
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(8))
        await pilot.pause()
        asked = repaints(app.table, monkeypatch)
        app.table.set_rows(rows(8))
        assert asked == []
        changed = rows(8)
        changed[2] = Row("t2", {**changed[2].cells, "loss": "4.4999"})
        app.table.set_rows(changed)
        start = shown(app.table)[3].index("4.4999")
        assert asked == [Region(start + 2, 3, 4, 1)]


async def test_rows_off_the_screen_cost_no_repaint(monkeypatch):
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(5000))
        await pilot.pause()
        asked = repaints(app.table, monkeypatch)
        changed = rows(5000)
        for i in range(23, 5000):
            changed[i] = Row(f"t{i}", {"id": "gone"})
        app.table.set_rows(changed)
        assert asked == []


async def test_moving_the_cursor_repaints_two_lines(monkeypatch):
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(8))
        await pilot.pause()
        asked = repaints(app.table, monkeypatch)
        app.table.action_cursor_down()
        assert {region.y for region in asked if region is not None} == {1, 2}


async def test_running_off_the_page_scrolls_by_a_part_of_it():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.set_rows(rows(100))
        for _ in range(23):
            await pilot.press("down")
        assert app.table.top == 8
        assert app.table.cursor_index == 23


async def test_marked_rows_and_the_sorted_column_show_without_colour():
    for ascii, mark, arrow in [(False, "●", "▼"), (True, "*", "v")]:
        app = TableApp(ascii=ascii)
        async with app.run_test(size=(80, 24)):
            app.table.set_rows([Row("a", {"id": "7"}, marked=True), Row("b")])
            app.table.set_sort("loss", descending=True)
            lines = shown(app.table)
            assert lines[1].startswith(mark)
            assert lines[2].startswith(" ")
            assert f"Loss{arrow}" in lines[0]
            assert not ascii or all(text.isascii() for text in lines)


async def test_without_colour_the_cursor_is_in_reverse_video(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = TableApp()
    async with app.run_test(size=(80, 24)):
        app.table.set_rows(rows(3))
        reversed_lines = [
            y
            for y in range(5)
            if any(s.style and s.style.reverse for s in app.table.build_line(y, 80))
        ]
        assert reversed_lines == [1]


async def test_styled_text_keeps_its_spans_when_aligned_and_cut():
    app = TableApp()
    async with app.run_test(size=(80, 24)):
        text = Text.assemble("a", ("bad", "bold red"), "z")
        app.table.set_rows([Row("k0"), Row("k", {"loss": text, "id": Text("1234567890")})])
        strip = app.table.build_line(2, 80)
        bold = "".join(s.text for s in strip if s.style and s.style.bold)
        assert bold == "bad"
        assert "1234…" in strip.text
        assert "  abadz" in strip.text


async def test_cells_cannot_smuggle_escape_sequences():
    app = TableApp()
    async with app.run_test(size=(80, 24)):
        app.table.set_rows([Row("k", {"state": "\x1b[2J", "loss": Text("a\x1b]52;c;x\x07")})])
        assert "\x1b" not in shown(app.table)[1]


async def test_duplicate_keys_are_refused():
    app = TableApp()
    async with app.run_test(size=(80, 24)):
        with pytest.raises(ValueError, match="different keys"):
            app.table.set_rows([Row("a"), Row("a")])


async def test_shrinking_the_terminal_keeps_the_cursor_in_sight():
    app = TableApp()
    async with app.run_test(size=(160, 45)) as pilot:
        app.table.set_rows(rows(100))
        app.table.move_cursor("t40")
        await pilot.resize_terminal(60, 15)
        await pilot.pause()
        assert app.table.top <= 40 < app.table.top + 14
        assert any(text.split()[:1] == ["40"] for text in shown(app.table))


async def test_cells_are_made_only_for_the_rows_that_are_drawn():
    made: list[int] = []

    def cells(number: int) -> dict[str, str]:
        made.append(number)
        return {"id": f"i{number}"}

    app = TableApp()
    async with app.run_test(size=(80, 10)) as pilot:
        app.table.set_rows([Row(f"t{i}", LateCells(partial(cells, i))) for i in range(1000)])
        await pilot.pause()
        assert "i3" in app.table.build_line(4, 80).text
        assert 0 < len(set(made)) < 20 and len(made) == len(set(made))

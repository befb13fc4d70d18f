"""Names with their bars."""

import pytest
from textual.app import App, ComposeResult

from tui.widgets.share_bars import Share, ShareBars


class BarsApp(App[None]):
    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self.bars = ShareBars(ascii=ascii)

    def compose(self) -> ComposeResult:
        yield self.bars


def shown(bars: ShareBars) -> list[str]:
    return [bars.build_line(y, bars.size.width).text for y in range(bars.size.height)]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 160])
@pytest.mark.parametrize("ascii", [False, True])
async def test_bars_compare_and_fit(width: int, ascii: bool) -> None:
    app = BarsApp(ascii=ascii)
    async with app.run_test(size=(width, 6)):
        shares = [
            Share("learning rate", 0.8),
            Share("a" * 90, 0.1, "may be chance"),
            Share("b", None, "not known"),
        ]
        app.bars.set_shares(shares, "", "what they are")
        lines = shown(app.bars)
        full = "#" if ascii else "█"
        assert {len(line) for line in lines} == {width}
        assert "80%" in lines[0] and "10%" in lines[1]
        assert lines[0].count(full) > lines[1].count(full)
        assert "n/a" in lines[2] and lines[4].startswith(" what they are")
        assert not ascii or all(line.isascii() for line in lines)


async def test_without_shares_a_sentence_says_why() -> None:
    app = BarsApp()
    async with app.run_test(size=(60, 5)):
        app.bars.set_shares((), "not known yet: fewer than six trials have ended")
        assert "fewer than six" in "".join(shown(app.bars))


async def test_what_has_no_room_is_counted() -> None:
    app = BarsApp()
    async with app.run_test(size=(60, 3)):
        app.bars.set_shares([Share(f"p{i}", 0.5 / (i + 1)) for i in range(6)])
        lines = shown(app.bars)
    assert "p1" in lines[1] and lines[2].strip() == "and 4 that matter less"

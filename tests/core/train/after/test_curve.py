"""The curve of a training as a card shows it: bars, a table, a picture."""

import math
from xml.etree import ElementTree

from core.study.metrics import Point
from core.train.after.curve import ROWS, picture, sparkline, table

SVG = "{http://www.w3.org/2000/svg}"


def _run(updates: int, every: int) -> list[Point]:
    """A loss at each update, and an evaluation after some of them, as the Trainer logs them: one after the other."""
    points = []
    for n in range(1, updates + 1):
        points.append(Point(t=0.0, step=n, loss=5 / n, lr=1e-4, grad_norm=1.0))
        if n % every == 0:
            points.append(Point(t=0.0, step=n, eval_loss=4 / n, more={"eval_accuracy": 0.5}))
    return points


def _lines(text: str) -> list[list[tuple[float, float]]]:
    """The corners of each line of a picture."""
    return [
        [(float(x), float(y)) for x, _, y in (c.partition(",") for c in line.attrib["points"].split())]
        for line in ElementTree.fromstring(text).iter(f"{SVG}polyline")
    ]  # fmt: skip


def test_bars_go_from_low_to_high_and_show_what_is_no_number() -> None:
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([1.0, math.nan, 2.0]) == "▁?█"
    assert sparkline([math.nan]) == "?"
    assert len(sparkline([float(n) for n in range(1000)])) == 60


def test_the_table_of_a_long_run_shows_its_evaluations_and_its_end() -> None:
    rows = table(_run(1003, 50)).splitlines()[2:]
    assert len(rows) == ROWS
    assert rows[0] == "| 50 | 0.1 | 0.08 | 0.0001 | 1 |"
    assert rows[-1].startswith("| 1,003 | 0.004985 |  |"), "the end has no evaluation"
    assert all(row.split("|")[3].strip() for row in rows[:-1])


def test_the_table_of_a_run_without_validation_shows_its_updates() -> None:
    rows = table(_run(200, 1000)).splitlines()[2:]
    assert len(rows) == ROWS and rows[0].startswith("| 1 | 5 |")
    assert len(table(_run(3, 1000)).splitlines()) == 2 + 3


def test_an_evaluation_between_two_logged_losses_stands_beside_the_last_one() -> None:
    points = [Point(t=0.0, step=10, loss=2.0), Point(t=0.0, step=15, eval_loss=1.5)]
    points.append(Point(t=0.0, step=20, loss=1.0))
    assert table(points).splitlines()[2:] == ["| 15 | 2 | 1.5 |  |  |", "| 20 | 1 |  |  |  |"]


def test_the_picture_has_a_line_for_each_loss_inside_its_frame() -> None:
    text = picture(_run(2000, 50))
    training, validation = _lines(text)
    assert len(training) == 300 and len(validation) == 40
    assert all(60 <= x <= 710 and 30 <= y <= 270 for x, y in [*training, *validation])
    assert training[0][1] < training[-1][1], "a falling loss goes down the page"
    assert "update 2,000" in text and "eval_loss" in text and len(text) < 10_000


def test_what_is_no_number_is_left_out_of_the_picture() -> None:
    losses = [1.0, math.inf, math.nan, 1.0]
    (line,) = _lines(picture([Point(t=0.0, step=n, loss=v) for n, v in enumerate(losses)]))
    assert len(line) == 2 and all(math.isfinite(y) for _, y in line)


def test_too_few_points_make_no_picture() -> None:
    assert picture([]) == "" and picture([Point(t=0.0, step=1, loss=1.0)]) == ""

"""The curve of a training, for a model card: as bars of text, as a table, and as a picture. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeGuard, TypeVar

from core.study.metrics import Point

PICTURE = "curve.svg"
"""The file beside the card that holds the picture."""
ROWS = 12
"""Moments of the training that the table shows."""
_BARS = "▁▂▃▄▅▆▇█"
_BARS_WIDE = 60
_CORNERS = 300
"""Corners of a line of the picture at most: of more, neighbours are averaged."""
_WIDE, _HIGH = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 10, 30, 30
"""Margins of the picture, where names and numbers stand."""
_COLOURS = {"loss": "#7aa6c2", "eval_loss": "#c2410c"}

_Value = TypeVar("_Value")
Line = Sequence[tuple[int, float]]
"""Updates, and the loss at each; all finite."""


def sparkline(values: Sequence[float], width: int = _BARS_WIDE) -> str:
    """`values` as bars, low to high; more than `width` are averaged, what is not finite is a question mark."""
    means = [_mean(part) for part in _parts(values, width)]
    finite = [v for v in means if math.isfinite(v)]
    if not finite:
        return "?" * len(means)
    low, high = min(finite), max(finite)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((v - low) * scale)] if math.isfinite(v) else "?" for v in means)


def table(points: Sequence[Point]) -> str:
    """Moments spread over the run, as a table in Markdown: its evaluations and its end, or, without any, updates."""
    moments = _by_update(points)
    measured = [p for p in moments[:-1] if p.eval_loss is not None]
    lines = [
        "| update | loss | eval_loss | learning rate | gradient norm |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(_row(p) for p in _spread([*measured, moments[-1]] if measured else moments)),
    ]
    return "\n".join(lines)


def picture(points: Sequence[Point]) -> str:
    """The losses in training and validation as SVG; "" where there are too few for a line."""
    found: dict[str, Line] = {
        "loss": [(p.step, p.loss) for p in points if _is_number(p.loss)],
        "eval_loss": [(p.step, p.eval_loss) for p in points if _is_number(p.eval_loss)],
    }
    lines = {name: line for name, line in found.items() if len(line) > 1}
    if not lines:
        return ""
    frame = _Frame([corner for line in lines.values() for corner in line])
    size = f'width="{_WIDE}" height="{_HIGH}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        # Not transparent: the page may be dark.
        f'<rect {size} fill="#ffffff"/>',
        *frame.axes(),
    ]
    for i, (name, line) in enumerate(lines.items()):
        parts += [
            f'<text x="{_LEFT + 60 * i}" y="18" fill="{_COLOURS[name]}">{name}</text>',
            frame.line(line, _COLOURS[name]),
        ]
    return "\n".join([*parts, "</svg>\n"])


class _Frame:
    """Where updates and losses lie in the picture."""

    def __init__(self, corners: Line) -> None:
        updates, losses = [x for x, _ in corners], [y for _, y in corners]
        self._first, self._last = min(updates), max(*updates, min(updates) + 1)
        self._low, self._high = min(losses), max(losses)
        if self._low == self._high:
            self._low, self._high = self._low - 0.5, self._high + 0.5

    def axes(self) -> Iterator[str]:
        """Lines across at five losses, and the first and the last update."""
        grey = 'fill="#555555"'
        for i in range(5):
            value = self._low + (self._high - self._low) * i / 4
            y = self._y(value)
            yield f'<path d="M{_LEFT} {y:.1f}H{_WIDE - _RIGHT}" stroke="#e5e5e5"/>'
            yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {grey}>{value:.4g}</text>'
        for step, anchor in ((self._first, "start"), (self._last, "end")):
            place = f'x="{self._x(step):.1f}" y="{_HIGH - 10}" text-anchor="{anchor}"'
            yield f"<text {place} {grey}>update {step:,}</text>"

    def line(self, corners: Line, colour: str) -> str:
        """A line through `corners`, which are in order."""
        means = (
            (_mean([x for x, _ in part]), _mean([y for _, y in part]))
            for part in _parts(corners, _CORNERS)
        )
        places = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in means)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{places}"/>'

    def _x(self, step: float) -> float:
        wide = _WIDE - _LEFT - _RIGHT
        return _LEFT + wide * (step - self._first) / (self._last - self._first)

    def _y(self, value: float) -> float:
        high = _HIGH - _TOP - _BOTTOM
        return _TOP + high * (self._high - value) / (self._high - self._low)


def _by_update(points: Sequence[Point]) -> list[Point]:
    """One point for each update: what was logged of it together, and what was not logged as it was before."""
    moments: dict[int, Point] = {}
    now = Point(t=0.0, step=0)
    for point in points:
        seen = moments.get(point.step)
        now = Point(
            t=0.0,
            step=point.step,
            loss=now.loss if point.loss is None else point.loss,
            lr=now.lr if point.lr is None else point.lr,
            grad_norm=now.grad_norm if point.grad_norm is None else point.grad_norm,
            # An old evaluation would look like a new one.
            eval_loss=seen.eval_loss if seen and point.eval_loss is None else point.eval_loss,
        )
        moments[point.step] = now
    return list(moments.values())


def _spread(points: Sequence[Point]) -> Sequence[Point]:
    """ROWS of the points at most, the first and the last among them."""
    if len(points) <= ROWS:
        return points
    return [points[round(i * (len(points) - 1) / (ROWS - 1))] for i in range(ROWS)]


def _row(point: Point) -> str:
    cells = (point.loss, point.eval_loss, point.lr, point.grad_norm)
    told = " | ".join("" if c is None else f"{c:.4g}" for c in cells)
    return f"| {point.step:,} | {told} |"


def _parts(values: Sequence[_Value], most: int) -> list[Sequence[_Value]]:
    """`values` cut into `most` parts; fewer values stand alone."""
    count = min(most, len(values))
    return [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)

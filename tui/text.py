"""Numbers, times and tables as people read them in a terminal. Pure."""

import math
from collections.abc import Sequence

GIB = 1024**3


def loss(value: float | None) -> str:
    """A loss in nats with four digits behind the point; "NaN" and "inf" by name, "-" where there is none."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def gib(size: int | None) -> str:
    """A number of bytes in GiB, "-" where there is none."""
    return "-" if size is None else f"{size / GIB:.2f} GiB"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: 8s, 3m 20s, 2h 05m, 3d 04h; "-" where there is none."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A plain table; columns whose number is in `right` are right-aligned. Lines carry no trailing spaces."""
    widths = [max(len(str(c)) for c in column) for column in zip(headers, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(headers), *map(line, rows)])

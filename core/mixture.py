"""How several data sets become one: how many rows of each are trained on and set aside, and in which order they come.

Rows are drawn in proportion, not by chance: row k of a set with weight w stands at (k + ½) / w, and rows come in the
order of these places. Thus every stretch of the mixture has the proportions that were asked for, and a count needs no
draw. Where data sets are interleaved, evaluation rows are set aside in the same proportions before any row is
repeated, so that no row is both learnt and evaluated on. Pure; shared by the clients, which count, and the worker.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from core.data_size import validation_rows

CONCAT = "concat"
UNDER = "interleave_under"
OVER = "interleave_over"


@dataclass(frozen=True, slots=True)
class SetSize:
    """One data set: its different rows, and how many it stands for (more where rows are to be repeated)."""

    rows: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Portions:
    """Rows of each data set: set aside for evaluation, and trained on (repeated where there are not so many)."""

    aside: tuple[int, ...]
    train: tuple[int, ...]


def set_size(rows: int, num_samples: int | None, max_samples: int | None) -> SetSize:
    """What is taken of a set with `rows` rows when its entry asks for num_samples and the profile for max_samples."""
    wanted = num_samples if num_samples is not None else rows
    if max_samples is not None:
        wanted = min(wanted, max_samples)
    return SetSize(min(rows, wanted), wanted)


def totals(
    sizes: Sequence[SetSize], val_size: float, strategy: str, weights: Sequence[float] | None
) -> tuple[int, int]:
    """Rows to train on and rows set aside, of all sets together. The first is 0 or less where nothing would be left."""
    if strategy == CONCAT or len(sizes) < 2:
        rows = sum(s.rows for s in sizes)
        aside = validation_rows(rows, val_size)
        if aside >= rows:
            return 0, rows
        return sum(s.wanted for s in sizes) - aside, aside
    portions = interleaved(sizes, val_size, strategy, weights)
    return sum(portions.train), sum(portions.aside)


def interleaved(
    sizes: Sequence[SetSize], val_size: float, strategy: str, weights: Sequence[float] | None
) -> Portions:
    """The portions of interleaved sets; `train` is all 0 where a set would have nothing left to train on."""
    shares = exact_shares(len(sizes), weights)
    unique = up_to(shares, _ends(shares, [s.rows for s in sizes], first=True))
    count = validation_rows(sum(unique), val_size)
    aside = tuple(_first(shares, count)) if count else (0,) * len(sizes)
    left = [s.rows - a for s, a in zip(sizes, aside, strict=True)]
    if min(left) <= 0:
        return Portions(aside, (0,) * len(sizes))
    rows = [s.wanted - a for s, a in zip(sizes, aside, strict=True)]
    train = up_to(shares, _ends(shares, rows, first=strategy == UNDER))
    return Portions(aside, tuple(train))


def exact_shares(sets: int, weights: Sequence[float] | None) -> list[Fraction]:
    """The weights as fractions of exactly the decimals that were written; all alike where there are none."""
    if weights is None:
        return [Fraction(1)] * sets
    return [Fraction(repr(float(w))) for w in weights]


def order(shares: Sequence[Fraction]) -> Iterator[int]:
    """The sets from which rows come, one after the other, without end."""
    # The places (2k + 1) / 2w times a common factor, which makes whole numbers of them.
    least = math.lcm(*(share.numerator for share in shares))
    steps = [least // s.numerator * s.denominator for s in shares]
    heap = [(step, index) for index, step in enumerate(steps)]
    heapq.heapify(heap)
    while True:
        place, index = heap[0]
        yield index
        heapq.heapreplace(heap, (place + 2 * steps[index], index))


def up_to(shares: Sequence[Fraction], place: Fraction) -> list[int]:
    """How many rows of each set come up to and with `place`."""
    return [math.floor(place * share + Fraction(1, 2)) for share in shares]


def _ends(shares: Sequence[Fraction], rows: Sequence[int], *, first: bool) -> Fraction:
    """The place, half a row after the last one, where the set ends that is used up first, or last."""
    places = [n / share for n, share in zip(rows, shares, strict=True)]
    return min(places) if first else max(places)


def _first(shares: Sequence[Fraction], count: int) -> list[int]:
    """How many of the first `count` rows are each set's."""
    # Up to a place just before them, then one by one: counts may be large.
    place = Fraction(max(0, count - len(shares))) / sum(shares)
    counts = up_to(shares, place)
    while sum(counts) > count:
        place -= 1 / max(shares)
        counts = up_to(shares, max(Fraction(0), place))
    while sum(counts) < count:
        nexts = [
            (Fraction(2 * n + 1, 2) / s, i)
            for i, (n, s) in enumerate(zip(counts, shares, strict=True))
        ]
        counts[min(nexts)[1]] += 1
    return counts

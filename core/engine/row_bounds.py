"""How long the rows of the data can be at most, told by their bytes before anybody has counted their tokens."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from core.data_size import DataSizeError, measure
from core.memory.forecast import Lengths
from core.profile import Profile, dataset_files, eval_files

TEMPLATE_TOKENS = 64
"""More than a chat template puts around a row's text."""
LARGEST = 64 * 1024 * 1024
"""Bytes of data that are read for it; it holds the daemon up for a fraction of a second."""


def bound(
    profile: Profile, train: Sequence[int | None], evaluation: Sequence[int | None]
) -> Lengths:
    """The longest that rows can be: data.cutoff_len, or a token for each byte of the longest row where that is less.

    `train` and `evaluation` are the bytes of each file's longest row, None where that is not known; without files to
    evaluate on, rows of those to train on are set aside.
    """
    most = Lengths.bound(profile)
    if profile.data.packing:
        return most
    longest = _longest(train, most.train)
    return Lengths(longest, min(most.evaluation, _longest(evaluation or train, most.train)))


def bound_of_files(profile: Profile) -> Lengths:
    """The same by the profile's files, as far as they are small enough to be read now."""
    train, evaluation = dataset_files(profile), eval_files(profile)
    if _bytes({*train, *evaluation}) > LARGEST:
        return Lengths.bound(profile)
    return bound(profile, [_row(f) for f in train], [_row(f) for f in evaluation])


def _longest(sizes: Sequence[int | None], most: int) -> int:
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return most
    return min(most, max(known) + TEMPLATE_TOKENS)


def _bytes(files: Iterable[str]) -> int:
    try:
        return sum(Path(file).stat().st_size for file in files)
    except OSError:
        return 0


def _row(file: str) -> int | None:
    try:
        return measure(Path(file)).longest
    except DataSizeError:
        return None

"""How long the rows of the data can be at most, told by their bytes before anybody has counted their tokens."""

from collections.abc import Iterable, Sequence

from core.data_size import DataSizeError, measure
from core.dataset_info import DataSet, DataSetError, find_sets, size_of
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
    if profile.data.packing or profile.method.stage == "pt":
        return most
    longest = _longest(train, most.train)
    return Lengths(longest, min(most.evaluation, _longest(evaluation or train, most.train)))


def bound_of_files(profile: Profile) -> Lengths:
    """The same by the profile's files, as far as they are small enough to be read now."""
    try:
        train = find_sets(dataset_files(profile), profile.data.dataset_dir)
        evaluation = find_sets(eval_files(profile), profile.data.dataset_dir)
    except DataSetError:
        return Lengths.bound(profile)
    if profile.data.streaming or _bytes([*train, *evaluation]) > LARGEST:
        return Lengths.bound(profile)
    return bound(profile, [_row(s) for s in train], [_row(s) for s in evaluation])


def _longest(sizes: Sequence[int | None], most: int) -> int:
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return most
    return min(most, max(known) + TEMPLATE_TOKENS)


def _bytes(sets: Iterable[DataSet]) -> int:
    try:
        return sum(path.stat().st_size for path in {p for s in sets for p in s.files})
    except OSError:
        return 0


def _row(dataset: DataSet) -> int | None:
    try:
        return size_of(dataset, measure).longest
    except DataSizeError:
        return None

"""The longest rows of a profile's data in tokens, as the worker would make them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data_size import PADDED_TO, batch_width
from core.dryrun.errors import CannotProve
from core.memory.forecast import Lengths
from core.profile import Profile, dataset_files, eval_files, model_path
from core.train.build import load_tokenizer
from core.train.chat import ChatEncoder
from core.train.data import pack, read_split
from core.train.errors import UsageError
from core.train.formats import Conversation
from core.train.source import Source

ALL = 2000
"""Up to so many rows all are tokenised."""
SHARE = 0.05
"""Of more rows, the share of them that look the longest."""
_PLAIN = b"abcdefghijklmnopqrstuvwxyz "
"""What words are made of, several to a token; other bytes (digits, signs, capitals, other scripts) come to nearly a
token each at worst."""


def measure(profile: Profile) -> Lengths:
    """The longest rows to train and to evaluate on, padded.

    Among more than ALL rows, the longest is looked for among those that look the longest (`_weight`).

    Raises:
        CannotProve: the data, the tokenizer or the template cannot be read.
    """
    table = profile.data
    try:
        split = read_split(
            table, dataset_files(profile), eval_files(profile), profile.train.data_seed
        )
        encoder = ChatEncoder(
            load_tokenizer(profile, _source(profile)),
            profile.model.template,
            table.cutoff_len,
            table.train_on_prompt,
        )
        if table.packing and len(split.train) <= ALL:
            train = [len(p.ids) for p in pack(_examples(split.train, encoder), table.cutoff_len)]
        elif table.packing:
            # How full the fullest is depends on all of the rows.
            train = [table.cutoff_len - 1, table.cutoff_len]
        else:
            train = _widths(split.train, encoder)
        evaluation = _widths(split.evaluation, encoder)
    except UsageError as error:
        raise CannotProve(str(error)) from None
    if not train:
        raise CannotProve(
            f"no row to train on has an answer within the first {table.cutoff_len} tokens; raise data.cutoff_len"
        )
    every = {*train, *evaluation}
    return Lengths(
        batch_width(max(train), cuda=True),
        batch_width(max(evaluation, default=0), cuda=True),
        measured=True,
        padded=len(every) > 1 or max(every) % PADDED_TO > 0,
    )


def _widths(rows: Sequence[Conversation], encoder: ChatEncoder) -> list[int]:
    """The lengths of rows, the longest among them."""
    if not rows:
        return []
    if len(rows) <= ALL:
        return [len(example.ids) for example in _examples(rows, encoder)]
    count = max(ALL // 2, round(len(rows) * SHARE))
    ordered = sorted(rows, key=_weight, reverse=True)
    widths: list[int] = []
    while ordered and not widths:
        # Rows whose answer lies beyond cutoff_len are left out, and the longest are the first to be.
        widths = [len(example.ids) for example in _examples(ordered[:count], encoder)]
        ordered = ordered[count:]
    # Rows that were not looked at are shorter, and need padding.
    return [*widths, 1] if widths and ordered else widths


def _examples(rows: Sequence[Conversation], encoder: ChatEncoder) -> list[Any]:
    return [example for example in encoder.encode(rows) if example.learnt]


def _weight(row: Conversation) -> int:
    """How many tokens a row may have, in thirds."""
    size = 0
    for turn in row.turns:
        text = turn.text.encode(errors="replace")
        size += len(text) + 2 * len(text.translate(None, _PLAIN))
    return size


def _source(profile: Profile) -> Source:
    """Where the tokenizer is, without a download and without unpacking anything."""
    path = Path(model_path(profile))
    if path.is_dir():
        return Source(str(path), (str(path),))
    if path.is_file():
        from core.train.gguf import unpacked_folder

        folder = unpacked_folder(path.resolve())
        if folder is None:
            raise CannotProve(
                f"{path} has not been unpacked yet, so that its tokenizer cannot be read; the first trial does it"
            )
        return Source(str(folder), (str(folder),))
    from core.train.source import cached_folder

    cached = cached_folder(str(path), profile.model)
    if cached is None:
        raise CannotProve(
            f"there is no {path} on this machine; it is downloaded when it is trained"
        )
    return Source(str(path), (str(cached),))

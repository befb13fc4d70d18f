"""The longest rows of a profile's data in tokens, as the worker would make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from core.data_size import PADDED_TO, batch_width
from core.dryrun.errors import CannotProve
from core.memory.forecast import Lengths
from core.params import DataTable
from core.profile import Profile, dataset_files, eval_files, model_path
from core.rows import AnyRow, Compared, Judged, Text
from core.train.data.chat import ChatEncoder, make_encoder
from core.train.data.examples import AnyExample, Example, Pair, Tagged
from core.train.data.packing import blocks, pack, packs_apart
from core.train.data.rows import read_split
from core.train.errors import UsageError
from core.train.model.build import load_tokenizer
from core.train.model.source import Source

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
    if table.streaming:
        # Reading all that the training will read takes as long as the training reads.
        return Lengths.bound(profile)
    try:
        split = read_split(
            table,
            profile.method.stage,
            dataset_files(profile),
            eval_files(profile),
            profile.train.data_seed,
        )
        encoder = make_encoder(load_tokenizer(profile, _source(profile)), profile)
        if profile.method.stage == "pt":
            train, evaluation = (
                _Rows(_cut_widths(rows, encoder, table)) for rows in (split.train, split.evaluation)
            )
        elif table.packing and profile.method.stage == "sft":
            train = _Rows(_packed_widths(split.train, encoder, table))
            evaluation = _seen(split.evaluation, encoder)
        else:
            train, evaluation = (_seen(r, encoder) for r in (split.train, split.evaluation))
    except UsageError as error:
        raise CannotProve(str(error)) from None
    if not train.widths:
        raise CannotProve(
            f"no row to train on has an answer within the first {table.cutoff_len} tokens; raise data.cutoff_len"
        )
    every = {*train.widths, *evaluation.widths}
    # Packed rows that are not to see each other need a mask as large as that of padding. Stage kto gives prompts the
    # answers of others.
    masked = packs_apart(table, profile.method.stage) or len(train.asked | evaluation.asked) > 1
    return Lengths(
        batch_width(max(train.widths), cuda=True),
        batch_width(max(evaluation.widths, default=0), cuda=True),
        measured=True,
        padded=masked or len(every) > 1 or max(every) % PADDED_TO > 0,
        learnt=max(train.learnt, evaluation.learnt),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is to know of rows of the data."""

    widths: list[int]
    """Tokens of each row that a batch has of them, the longest among them."""
    learnt: int = 0
    """The most tokens that are learnt of one of them; 0 where that is not asked."""
    asked: frozenset[int] = frozenset()
    """The lengths of stage kto's prompts."""


def _packed_widths(rows: Sequence[AnyRow], encoder: ChatEncoder, table: DataTable) -> list[int]:
    """The lengths of the sequences that rows are joined into."""
    if len(rows) > ALL:
        # How full the fullest is depends on all of the rows.
        return [table.cutoff_len - 1, table.cutoff_len]
    examples = cast(list[Example], _examples(rows, encoder))
    return [p.size for p in pack(examples, table.cutoff_len, apart=table.neat_packing)]


def _cut_widths(rows: Sequence[AnyRow], encoder: ChatEncoder, table: DataTable) -> list[int]:
    """The lengths of the blocks that texts are cut into."""
    if len(rows) > ALL:
        return [table.cutoff_len - 1, table.cutoff_len]
    examples = cast(list[Example], _examples(rows, encoder))
    return [b.size for b in blocks(examples, table.cutoff_len, apart=table.neat_packing)]


def _seen(rows: Sequence[AnyRow], encoder: ChatEncoder) -> _Rows:
    """Rows that are not packed."""
    if not rows:
        return _Rows([])
    if len(rows) <= ALL:
        return _rows_of(_examples(rows, encoder))
    count = max(ALL // 2, round(len(rows) * SHARE))
    ordered = sorted(rows, key=_weight, reverse=True)
    found = _Rows([])
    while ordered and not found.widths:
        # Rows whose answer lies beyond cutoff_len are left out, and the longest are the first to be.
        found = _rows_of(_examples(ordered[:count], encoder))
        ordered = ordered[count:]
    if not (found.widths and ordered):
        return found
    # The longest answer may stand in a row of middling length. Rows that were not looked at need padding.
    answers = sorted((row for row in ordered if _answers(row)), key=_answers, reverse=True)
    others = _rows_of(_examples(answers[: count // 2], encoder))
    return _Rows([*found.widths, 1], max(found.learnt, others.learnt), found.asked | others.asked)


def _rows_of(examples: Sequence[AnyExample]) -> _Rows:
    widths: list[int] = []
    asked: set[int] = set()
    for example in examples:
        widths.append(example.size)
        if isinstance(example, Pair):
            # Its two rows are of a batch, and the shorter one needs padding.
            widths.append(len(example.prompt) + min(len(example.chosen), len(example.rejected)))
        if isinstance(example, Tagged):
            asked.add(len(example.prompt))
    return _Rows(widths, max((e.learnt for e in examples), default=0), frozenset(asked))


def _examples(rows: Sequence[AnyRow], encoder: ChatEncoder) -> list[AnyExample]:
    return [example for example in encoder.encode(rows) if example.learnt]


def _weight(row: AnyRow) -> int:
    """How many tokens a row may have, in thirds: of a pair, with the longer answer."""
    match row:
        case Text():
            return _thirds(row.text)
        case Compared():
            answer = max(_thirds(row.chosen), _thirds(row.rejected))
        case Judged():
            answer = _thirds(row.answer)
        case _:
            answer = 0
    return answer + sum(_thirds(turn.text) for turn in row.turns)


def _answers(row: AnyRow) -> int:
    """The same of what is learnt of rows that somebody has judged: of both answers of a pair."""
    match row:
        case Compared():
            return _thirds(row.chosen) + _thirds(row.rejected)
        case Judged():
            return _thirds(row.answer)
        case _:
            return 0


def _thirds(text: str) -> int:
    written = text.encode(errors="replace")
    return len(written) + 2 * len(written.translate(None, _PLAIN))


def _source(profile: Profile) -> Source:
    """Where the tokenizer is, without a download and without unpacking anything."""
    path = Path(model_path(profile))
    if path.is_dir():
        return Source(str(path), (str(path),))
    if path.is_file():
        from core.train.model.gguf import unpacked_folder

        folder = unpacked_folder(path.resolve())
        if folder is None:
            raise CannotProve(
                f"{path} has not been unpacked yet, so that its tokenizer cannot be read; the first trial does it"
            )
        return Source(str(folder), (str(folder),))
    from core.train.model.source import cached_folder

    cached = cached_folder(str(path), profile.model)
    if cached is None:
        raise CannotProve(
            f"there is no {path} on this machine; it is downloaded when it is trained"
        )
    return Source(str(path), (str(cached),))

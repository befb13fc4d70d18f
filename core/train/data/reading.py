"""The data of a trial from its files to its examples, with as little work as the study's cache leaves.

It begins before the tokenizer is there: rows are read beside the imports, unless the cache holds something of the same
files, for which they would be read in vain.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.dataset_info import DataSetError, find_sets
from core.params import DataTable
from core.train.data import cache as caching
from core.train.data.batches import Examples, tokenise
from core.train.data.chat import ChatEncoder
from core.train.data.rows import Split, read_split

_NOT_CONTENT = {"dataset", "eval_dataset", "dataset_dir", "group_by_length"}
"""Keys of [data] that say where rows are, or in which order they come, and not what they become."""


class Reading:
    """The data of one trial. `begin` may run in another thread than the rest, which waits for it."""

    def __init__(
        self,
        table: DataTable,
        stage: str,
        train_files: Sequence[str],
        eval_files: Sequence[str],
        seed: int,
        cache: Path | None,
        wanted: int | None = None,
    ) -> None:
        """Arguments are those of `read_split`; `cache` is the folder that the trials of the study share."""
        self._table = table
        self._stage = stage
        self._files = (tuple(train_files), tuple(eval_files))
        self._seed = seed
        self._cache = cache
        self._wanted = wanted
        self._key: str | None = None
        self._split: Split | None = None

    @staticmethod
    def of(split: Split, table: DataTable, stage: str, cache: Path) -> "Reading":
        """The data of rows that have been read."""
        reading = Reading(table, stage, (), (), 0, cache)
        reading._split = split
        reading._key = rows_key(split)
        return reading

    def begin(self) -> None:
        """Read the rows, where they will be needed.

        Raises:
            DataError: a file or a row cannot be used, or nothing is left to train on.
        """
        if self._cache is not None:
            self._key = files_key(self._table, self._stage, *self._files, self._seed, self._wanted)
            if self._key is not None and caching.has_some(self._cache, self._key):
                return
        split = self._rows()
        if self._cache is not None and self._key is None:
            self._key = rows_key(split)

    def examples(self, encoder: ChatEncoder, check: Callable[[], None]) -> Examples:
        """The examples; `check` is called now and then and may raise to end the work. After `begin`.

        Raises:
            DataError: a row cannot be used, or none has anything to learn within cutoff_len.
        """

        def make(folder: Path | None, check: Callable[[], None]) -> Examples:
            return tokenise(self._rows(), encoder, self._table, self._stage, check, folder)

        if self._cache is None or self._key is None:
            return make(None, check)
        return caching.through_cache(
            self._cache,
            f"{self._key}-{settings_key(encoder, self._table, self._stage)}",
            grouped=self._table.group_by_length,
            make=make,
            check=check,
        )

    def _rows(self) -> Split:
        if self._split is None:
            self._split = read_split(
                self._table, self._stage, *self._files, self._seed, self._wanted
            )
        return self._split


def files_key(
    table: DataTable,
    stage: str,
    train: Sequence[str],
    evaluation: Sequence[str],
    seed: int,
    wanted: int | None = None,
) -> str | None:
    """What decides which rows there are: the content of the files, what their columns mean, and the settings. None
    where the files cannot be found or read, which those who read the rows will tell.

    Files of a stream are told by place, size and time of change: reading them whole is what streaming is to avoid.
    """
    told = _stat if table.streaming else _content
    try:
        sets = [
            (s.formatting, s.columns, s.tags, s.num_samples, [told(file) for file in s.files])
            for s in find_sets([*train, *evaluation], table.dataset_dir)
        ]
    except (OSError, DataSetError):
        return None
    return _key(
        sets, len(train), _settings(table), stage, seed, wanted if table.streaming else None
    )


def _content(file: Path) -> tuple[str, str]:
    return file.suffix.lower(), _digest(file)


def _stat(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns


def rows_key(split: Split) -> str:
    """The same of rows that have been read."""
    encoder = msgspec.json.Encoder()
    digest = hashlib.blake2b()
    for rows in (split.train, split.evaluation):
        digest.update(b"\0%d\0" % len(rows))
        for row in rows:
            digest.update(encoder.encode((type(row).__name__, row)))
    return _key(digest.hexdigest())


def settings_key(encoder: ChatEncoder, table: DataTable, stage: str) -> str:
    """What decides which examples rows become: the tokenizer, the template and the settings."""
    import tokenizers
    import transformers

    return _key(
        caching.FORMAT,
        tokenizers.__version__,
        transformers.__version__,
        tokenizer_key(encoder.tokenizer),
        encoder.settings,
        _settings(table),
        stage,
    )


def tokenizer_key(tokenizer: Any) -> str:
    """A tokenizer's content, wherever it lies."""
    special = [str(token) for token in tokenizer.all_special_tokens], tokenizer.eos_token
    if tokenizer.is_fast:
        return _key(tokenizer.backend_tokenizer.to_str(), special)
    folder = Path(tokenizer.name_or_path)
    files = sorted(tokenizer.vocab_files_names.values())
    content = [_digest(folder / name) for name in files if (folder / name).is_file()]
    return _key(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), content, special)


def _settings(table: DataTable) -> dict[str, Any]:
    return table.model_dump(exclude=_NOT_CONTENT)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()


def _key(*parts: Any) -> str:
    return hashlib.blake2b(_text(parts), digest_size=10).hexdigest()


def _text(parts: Iterable[Any]) -> bytes:
    return msgspec.json.encode(parts, order="sorted")

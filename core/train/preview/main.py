"""The process that shows a profile's data as its training sees it: the template applied, what carries loss marked, the
rows counted, and what looks like a mistake said.

Started as `tunedeck _data`. It reads one request from its standard input and tells what it finds on its standard
output, a line each (`core.study.preview`). It ends when its input does: whoever asked is gone. Only the tokenizer is
loaded. Rows and tokens come from the functions that training uses.
"""

import contextlib
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.profile import Profile, ProfileError, dataset_files, eval_files, from_document, model_path
from core.rows import AnyRow
from core.study.preview import (
    Began,
    Failed,
    Kind,
    PreviewRequest,
    Progress,
    Shown,
    Told,
    decode_request,
    encode,
)
from core.train.data.chat import ChatEncoder, make_encoder
from core.train.data.examples import AnyExample, Example
from core.train.data.packing import joined, packs
from core.train.data.rows import Split, read_split
from core.train.errors import DataError, ModelError, UsageError, first_line
from core.train.model.source import Source, cached_folder, find_model
from core.train.preview.examine import Examiner
from core.train.preview.shown import Picture, sayable
from core.train.preview.suspicion import (
    stage_findings,
    template_findings,
    tokenizing,
    used_template,
)

NICENESS = 5
"""What is trained, and what is typed, comes first."""
CHUNK = 512
"""Rows that are tokenised at once."""
UNCUT = 2**30
"""A cutoff_len that cuts nothing off."""
FIRST_PACKED = 512
"""Rows of which the first packed sequences are made, before all have been tokenised."""
LOOKED_INTO = 200
"""Rows that are looked into for signs of another stage."""
HUB_SECONDS = 10.0
"""How long the hub may take to answer at all."""
Tell = Callable[[Told], None]


def main(argv: list[str]) -> int:
    """Answer one request; 0: it can be trained on, 1: it cannot, or something failed."""
    if argv:
        print("usage: tunedeck _data", file=sys.stderr)
        return 2
    _prepare_process()
    told = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not stand between the answers.
    os.dup2(2, 1)
    asked = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_input, daemon=True).start()

    def tell(message: Told) -> None:
        told.write(encode(message))
        told.flush()

    try:
        return answer(asked, tell)
    except BrokenPipeError:
        return 1


def answer(line: bytes, tell: Tell) -> int:
    """Answer a request; every failure becomes a message."""
    try:
        request = decode_request(line)
        profile = from_document(request.profile, source="the profile")
        without_torch(profile)
        return look(profile, request, tell)
    except (UsageError, ProfileError) as error:
        tell(Failed(sayable(str(error))))
    except msgspec.DecodeError as error:
        tell(Failed(f"this is no request: {error}", usage=False))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        tell(Failed(sayable(f"{type(error).__name__}: {first_line(error)}"), usage=False))
    return 1


def look(profile: Profile, request: PreviewRequest, tell: Tell) -> int:
    """Show the first examples, then count and examine the rows; 1 where they cannot be trained on.

    Raises:
        UsageError: the model's tokenizer, a file or a row cannot be used.
    """
    tell(Progress("the rows are read"))
    split = read_split(
        profile.data,
        profile.method.stage,
        dataset_files(profile),
        eval_files(profile),
        profile.train.data_seed,
        rows_of_stream(profile),
    )
    sight = Sight(profile, split, find_tokenizer(profile, tell), request.most)
    tell(sight.began())
    shown = sight.asked_for(request.row) if request.row else sight.first(request.examples)
    for example in shown:
        tell(example)
    return sight.examine(request, tell) if request.examine else 0


def rows_of_stream(profile: Profile) -> int | None:
    """How many rows the training takes of a stream; None where that is not known, or nothing is streamed."""
    steps = profile.train.max_steps
    if not profile.data.streaming or steps is None:
        return None
    return steps * profile.effective_batch()


@dataclass(frozen=True, slots=True)
class Both:
    """The examples of some rows, without a cut-off and with it."""

    whole: Sequence[AnyExample]
    cut: Sequence[AnyExample]


class Sight:
    """The rows of a profile and what becomes of them."""

    def __init__(self, profile: Profile, split: Split, tokenizer: Any, most: int | None) -> None:
        """`most` rows are examined; None: all.

        Raises:
            SettingsError: the template does not fit the tokenizer.
        """
        self._profile, self._table = profile, profile.data
        self._encoder = make_encoder(tokenizer, profile)
        uncut = self._table.model_copy(update={"cutoff_len": UNCUT})
        self._uncut = ChatEncoder.of(tokenizer, profile.model.template, uncut)
        self._picture = Picture(tokenizer)
        self._of = len(split.train)
        self._most = self._of if most is None else min(most, self._of)
        # Of a stream nothing is held, and going back reads it again from its beginning.
        streamed = self._table.streaming
        self._rows = split.train[: self._most] if streamed else split.train
        self._evaluation = split.evaluation

    def began(self) -> Began:
        """What there is."""
        return Began(
            stage=self._profile.method.stage,
            template=used_template(self._encoder.tokenizer, self._profile),
            rows=self._of,
            eval_rows=len(self._evaluation),
            cutoff_len=self._table.cutoff_len,
            packed=self.packed,
        )

    @property
    def packed(self) -> bool:
        """Whether rows are joined into longer sequences."""
        return packs(self._table, self._profile.method.stage)

    def both(self, rows: Sequence[AnyRow]) -> Both:
        """The examples of some rows; what is not too long is made once."""
        whole = self._uncut.encode(rows)
        limit = self._table.cutoff_len
        long = [i for i, example in enumerate(whole) if example.size > limit]
        shorter = self._encoder.encode([rows[i] for i in long])
        cut = list(whole)
        for i, example in zip(long, shorter, strict=True):
            cut[i] = example
        return Both(whole, cut)

    def first(self, count: int) -> Iterator[Shown]:
        """The first examples to train on, packed where training packs."""
        if not self.packed:
            yield from self._shown(self._rows[:count])
            return
        rows = self._rows[:FIRST_PACKED]
        both = self.both(rows)
        kept = [(r, e) for r, e in zip(rows, both.cut, strict=True) if e.learnt]
        places = {e.ids.tobytes(): r.place for r, e in kept if isinstance(e, Example)}
        # Which rows share a sequence depends on all of them; blocks of texts follow one another.
        of = f", of the first {len(rows)} rows packed" if self._of > len(rows) else ""
        for number, sequence in enumerate(self._pack([e for _, e in kept])[:count], 1):
            name = f"sequence {number}" + of * (self._profile.method.stage != "pt")
            yield self._picture.packed(sequence, name, places)

    def asked_for(self, number: int) -> Iterator[Shown]:
        """The rows that have this number in their files.

        Raises:
            DataError: there are none.
        """
        found = False
        for part in (self._rows, self._evaluation):
            # Mixing may repeat a row.
            rows = {r.place: r for r in part if r.place.endswith(f", row {number}")}
            found = found or bool(rows)
            yield from self._shown(list(rows.values()), evaluation=part is self._evaluation)
        if not found:
            table = self._table
            sampled = table.max_samples or table.streaming
            other = ", or it is none of those that data.max_samples or the stream takes" * bool(
                sampled
            )
            raise DataError(f"no data file has a row {number}{other}")

    def examine(self, request: PreviewRequest, tell: Tell) -> int:
        """Count and examine the rows; 1 where they cannot be trained on."""
        examiner = Examiner(tokenizing(self._profile, self._encoder))
        kept: list[AnyExample] = []
        for start in range(0, self._most, CHUNK):
            tell(Progress("the rows are examined", start, self._most))
            chunk = self._rows[start : min(start + CHUNK, self._most)]
            both = self.both(chunk)
            examiner.look(chunk, both.whole, both.cut)
            if self.packed:
                kept += [example for example in both.cut if example.learnt]
        most = len(self._evaluation) if request.most is None else request.most
        evaluation = self._evaluation[:most]
        for start in range(0, len(evaluation), CHUNK):
            tell(Progress("the rows to evaluate on are examined", start, len(evaluation)))
            chunk = evaluation[start : start + CHUNK]
            examiner.look_at_evaluation(chunk, self.both(chunk).cut)
        more = [
            *template_findings(self._profile, self._encoder),
            *stage_findings(self._profile, self._rows[:LOOKED_INTO]),
        ]
        sequences = len(self._pack(kept)) if self.packed else None
        counted = examiner.counted(self._of, sequences, more)
        for finding in counted.findings if request.row is None else ():
            index = examiner.first(finding.kind)
            if finding.rows and index is not None:
                for example in self._shown([self._rows[index]], why=finding.kind):
                    tell(example)
        tell(counted)
        return int(any(finding.severity == "error" for finding in counted.findings))

    def _shown(
        self, rows: Sequence[AnyRow], *, evaluation: bool = False, why: Kind | None = None
    ) -> Iterator[Shown]:
        both = self.both(rows)
        for row, whole, cut in zip(rows, both.whole, both.cut, strict=True):
            yield self._picture.shown(row, whole, cut, evaluation=evaluation, why=why)

    def _pack(self, examples: Sequence[AnyExample]) -> list[Example]:
        """As `core.train.data.batches.tokenise` packs them."""
        return list(joined(examples, self._table, self._profile.method.stage))


def find_tokenizer(profile: Profile, tell: Tell) -> Any:
    """The profile's tokenizer, which is downloaded where it is not here; the model's weights are left alone.

    Raises:
        ModelError: there is none, or it can be neither read nor downloaded.
    """
    from core.train.model.build import load_tokenizer

    name = model_path(profile)
    file = Path(name)
    if file.is_file() and file.suffix.lower() == ".gguf":
        tell(Progress("the tokenizer is read from the .gguf file"))
        return _gguf_tokenizer(profile, file.resolve())
    source = find_model(profile, file, lambda: None)
    if not file.exists() and cached_folder(name, profile.model) is None:
        tell(Progress(f"the tokenizer of {name} is downloaded"))
        _check_hub(name)
    else:
        tell(Progress("the tokenizer is loaded"))
    return load_tokenizer(profile, source)


def _check_hub(name: str) -> None:
    """Ask the hub once: without an answer, transformers asks again and again for a minute.

    Raises:
        ModelError: it does not answer.
    """
    from huggingface_hub import constants, get_session

    missing = f"the tokenizer of {name} is not on this machine"
    instead = (
        f"download it where there is a network (hf download {name}), or name a model that is here"
    )
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{missing}, and HF_HUB_OFFLINE forbids to download it: {instead}")
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        raise ModelError(
            f"{missing}, and {constants.ENDPOINT} does not answer ({first_line(error)}): {instead}"
        ) from error


def _gguf_tokenizer(profile: Profile, file: Path) -> Any:
    """The tokenizer within a .gguf file: from the folder that it has been unpacked to, else read from the file."""
    from core.train.model.build import load_tokenizer
    from core.train.model.gguf import unpacked_folder

    folder = unpacked_folder(file)
    if folder is not None:
        return load_tokenizer(profile, Source(str(folder), (str(folder),)))
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:
        raise ModelError(f"the tokenizer in {file} cannot be read: {first_line(error)}") from error


def without_torch(profile: Profile) -> None:
    """Let transformers believe that there is no PyTorch: a tokenizer needs none, and starts in half the time. A model's
    own code, and what reads .gguf files, may need it."""
    if not profile.model.trust_remote_code and not model_path(profile).endswith(".gguf"):
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _prepare_process() -> None:
    """Settings that libraries read once, when they are imported."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "true",
    }
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
